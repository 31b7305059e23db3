//! Every key of the file, described once: `read` parses by it and `reference` prints the manual's page from it.
//!
//! It holds shapes and single values; what concerns several keys at once is in `rules`. A default is TOML text and goes through the same
//! reader as the user's own.

use super::units;

/// A table of the file.
#[derive(Debug)]
pub(super) struct Section {
    /// As the manual calls it: `[group.NAME]`, `park`.
    pub(super) title: &'static str,
    pub(super) doc: &'static str,
    pub(super) keys: &'static [Key],
    /// What other keys than `keys` may be and hold.
    pub(super) rest: Option<Rest>,
    /// Of these keys, exactly one or at most one is given.
    pub(super) one_of: OneOf,
}

#[derive(Debug)]
pub(super) struct Rest {
    /// What such a key names: `node`.
    pub(super) names: &'static str,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum OneOf {
    Free,
    Exactly(&'static [&'static str]),
    AtMost(&'static [&'static str]),
}

/// One key of a table.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) default: Unset,
    pub(super) doc: &'static str,
    /// TOML text of a value.
    pub(super) example: &'static str,
}

#[derive(Debug)]
pub(super) enum Unset {
    Required,
    /// TOML text.
    Is(&'static str),
    /// Nothing; the text says what that means.
    Absent(&'static str),
}

/// What a value may be.
#[derive(Debug)]
pub(super) enum Kind {
    Flag,
    /// A whole number in this range.
    Whole(i64, i64),
    /// Milliseconds, in this range.
    Duration(u64, u64),
    /// Bytes, in this range.
    Size(u64, u64),
    Rate,
    Address,
    /// Letters a to z, digits, hyphens.
    Name,
    Text,
    /// A text that may be empty.
    AnyText,
    /// An absolute path.
    Path,
    /// An absolute path, of a file that holds a secret: somebody may write the secret itself.
    SecretFile,
    /// The path of an HTTP request.
    UrlPath,
    /// A program and its arguments.
    Argv,
    Signal,
    /// `client-ip` or `header:NAME`.
    HashKey,
    /// `METHOD /path`
    Mark,
    Choice(&'static [&'static str]),
    List(&'static Self),
    /// A table whose keys are the user's.
    Map(&'static Rest),
    Table(&'static Section),
    /// One of several, told apart by their TOML type.
    Either(&'static [Self]),
}

impl Kind {
    /// In words, for an error and for the manual.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Flag => "true or false".into(),
            Self::Whole(min, max) => format!("a whole number from {min} to {max}"),
            Self::Duration(min, max) => {
                format!("a duration from \"{}\" to \"{}\"", units::show_duration_ms(*min), units::show_duration_ms(*max))
            }
            Self::Size(min, max) => format!("a size from \"{}\" to \"{}\"", units::show_size(*min), units::show_size(*max)),
            Self::Rate => "a rate such as \"1 per month\"".into(),
            Self::Address => "an address such as \"10.0.0.1:7400\"".into(),
            Self::Name => "a name: 1 to 32 of a-z, 0-9, -".into(),
            Self::Text | Self::AnyText => "a text".into(),
            Self::Path => "an absolute path".into(),
            Self::SecretFile => "the absolute path of a file, never the secret itself".into(),
            Self::UrlPath => "a path such as \"/healthz\"".into(),
            Self::Argv => "a program (its full path, or a name in PATH) and its arguments: [\"/path/program\", \"argument\"]".into(),
            Self::Signal => "one of \"SIGHUP\", \"SIGUSR1\", \"SIGUSR2\", \"SIGWINCH\", \"SIGCONT\"".into(),
            Self::HashKey => "\"client-ip\" or \"header:NAME\"".into(),
            Self::Mark => "a method and a path such as \"POST /search\", or all below one: \"PUT /items/\"".into(),
            Self::Choice([one]) => format!("\"{one}\""),
            Self::Choice(all) => format!("one of \"{}\"", all.join("\", \"")),
            Self::List(item) => format!("a list, each {}", item.words()),
            Self::Map(rest) => format!("a table: {} = {}", rest.names, rest.kind.words()),
            Self::Table(section) => format!("a table {{ {} }}", section.names().join(", ")),
            Self::Either(kinds) => kinds.iter().map(Self::words).collect::<Vec<_>>().join("; or "),
        }
    }
}

impl Section {
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|key| key.name).collect()
    }
}

const fn key(name: &'static str, kind: Kind, default: Unset, doc: &'static str, example: &'static str) -> Key {
    Key { name, kind, default, doc, example }
}

const fn plain(title: &'static str, doc: &'static str, keys: &'static [Key]) -> Section {
    Section { title, doc, keys, rest: None, one_of: OneOf::Free }
}

use self::Kind::{
    Address, AnyText, Argv, Choice, Duration, Either, Flag, HashKey, List, Map, Mark, Name, Path, Rate, SecretFile, Signal, Size, Table,
    Text, UrlPath, Whole,
};
use self::Unset::{Absent, Is, Required};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

pub(super) static FILE: Section = plain(
    "file",
    "",
    &[
        key("cluster", Table(&CLUSTER), Required, "The machines.", "{ ... }"),
        key("node", Table(&NODE), Is("{}"), "What one machine needs to know for itself.", "{ ... }"),
        key("group", Map(&Rest { names: "group", kind: Table(&GROUP) }), Is("{}"), "The services.", "{ ... }"),
    ],
);

pub(super) static CLUSTER: Section = plain(
    "[cluster]",
    "The machines, the same text on each of them. It seeds the first start; afterwards `hotwarm apply` changes the cluster.",
    &[
        key("name", Name, Required, "Name of the cluster; part of every node's certificate.", "\"shop\""),
        key(
            "nodes",
            Map(&Rest { names: "node", kind: Address }),
            Required,
            "Every machine that runs hotwarm, and where the others reach it.",
            "{ a = \"10.0.0.1:7400\", b = \"10.0.0.2:7400\" }",
        ),
        key("witness", List(&Name), Is("[]"), "Nodes that vote, host no member and open no group's listener.", "[\"c\"]"),
        key("edge", List(&Name), Is("[]"), "Nodes that route and do not vote.", "[\"d\"]"),
        key(
            "zones",
            Map(&Rest { names: "node", kind: Name }),
            Is("{}"),
            "Which nodes fail together: rooms, racks, sites. A router prefers members of its own zone; the next hot member, and the spare that is started, is preferred in another.",
            "{ a = \"room-1\", b = \"room-2\" }",
        ),
        key(
            "lease",
            Duration(200, 5 * MINUTE),
            Is("\"1s\""),
            "How long a node may act without hearing from the others. Shorter: faster failover when a machine dies, less patience with slow ones.",
            "\"1s\"",
        ),
        key(
            "heartbeat",
            Duration(10, 10 * SECOND),
            Is("\"100ms\""),
            "Interval between the heartbeats of nodes; at most a quarter of `lease`.",
            "\"100ms\"",
        ),
    ],
);

pub(super) static NODE: Section = Section {
    title: "[node]",
    doc: "What one machine needs to know for itself. `[node.NAME]` lays the same keys (but `name`) over it on one node.",
    keys: &[
        key(
            "name",
            Name,
            Absent("`--node`, `HOTWARM_NODE`, or what `hotwarm join` installed"),
            "Which node this machine is; leave it out to have the same file everywhere.",
            "\"a\"",
        ),
        key("data", Path, Is("\"/var/lib/hotwarm\""), "hotwarm's own directory: log, snapshots, keys; mode 0700.", "\"/var/lib/hotwarm\""),
        key(
            "api",
            Address,
            Is("\"127.0.0.1:7401\""),
            "The operator's API, metrics and health. Beyond loopback it needs `api_token` and the node's certificate, and speaks TLS alone.",
            "\"127.0.0.1:7401\"",
        ),
        key(
            "api_token",
            SecretFile,
            Absent("no token is asked for, and `api` is a loopback address"),
            "The file with the secret that the API asks for: one line of at least 32 characters, mode 0600 or 0640, outside `data`. Never the \
             secret itself: every node and whoever may read the configuration has this text.",
            "\"/etc/hotwarm/api.token\"",
        ),
    ],
    rest: Some(Rest { names: "node", kind: Table(&NODE_OVERRIDE) }),
    one_of: OneOf::Free,
};

pub(super) static NODE_OVERRIDE: Section = plain(
    "[node.NAME]",
    "Laid over `[node]` on the node NAME.",
    &[
        key("data", Path, Absent("as in `[node]`"), "See `[node]`.", "\"/srv/hotwarm\""),
        key("api", Address, Absent("as in `[node]`"), "See `[node]`.", "\"127.0.0.1:7411\""),
        key("api_token", SecretFile, Absent("as in `[node]`"), "See `[node]`.", "\"/etc/hotwarm/api.token\""),
    ],
);

pub(super) static GROUP: Section = plain(
    "[group.NAME]",
    "One service, kept by several members.",
    &[
        key(
            "mode",
            Either(&[Choice(&["hot-hot", "hot-warm", "hot-spare"]), Table(&MODE)]),
            Required,
            "How many members serve. `hot-hot`: all. `hot-warm`: one, the rest run and wait. `hot-spare`: one, the rest are started when needed.",
            "\"hot-hot\"",
        ),
        key(
            "listen",
            Either(&[Address, Map(&Rest { names: "node", kind: Address })]),
            Absent("no listener: clients go to the members themselves"),
            "Where clients reach the group: opened on every node but witnesses, or per node.",
            "\"0.0.0.0:8080\"",
        ),
        key(
            "protocol",
            Choice(&["http", "tcp"]),
            Required,
            "What clients speak. With `http` requests are balanced, repeated where safe, and parked one by one.",
            "\"http\"",
        ),
        key(
            "engine",
            Either(&[Choice(&["external"]), Table(&ENGINE)]),
            Required,
            "What keeps a member running. `external`: something else does; hotwarm probes the address.",
            "{ process = [\"nginx\", \"-g\", \"daemon off;\"] }",
        ),
        key(
            "members",
            Map(&Rest { names: "member", kind: Either(&[Address, Table(&MEMBER)]) }),
            Required,
            "The copies of the service. `NODE = \"address\"`, or `NAME = { node, address, ... }`.",
            "{ a = \"10.0.0.1:9080\", b = \"10.0.0.2:9080\" }",
        ),
        key("check", Table(&CHECK), Is("{}"), "How a member's health is probed.", "{ http = \"/healthz\" }"),
        key(
            "balance",
            Either(&[Choice(&["least-loaded", "round-robin"]), Table(&BALANCE)]),
            Is("\"least-loaded\""),
            "How a request finds one of several hot members.",
            "{ hash = \"header:x-user\" }",
        ),
        key(
            "park",
            Table(&PARK),
            Is("{}"),
            "Bounds on requests that wait for a hot member.",
            "{ time = \"10s\", requests = 1000, bytes = \"16MiB\" }",
        ),
        key("http", Table(&HTTP), Is("{}"), "Bounds on clients, and what may be repeated.", "{ head = \"16KiB\" }"),
        key("timeouts", Table(&TIMEOUTS), Is("{}"), "How long a router waits for a member or a client.", "{ first_byte = \"60s\" }"),
        key(
            "fence",
            Either(&[Choice(&["router-only"]), Table(&FENCE)]),
            Absent("a process's supervisor stops it, or its node's lease is waited out"),
            "How an old hot member that hotwarm did not start is kept from serving.",
            "{ command = [\"/usr/local/bin/power-off\"] }",
        ),
        key("objective", Table(&OBJECTIVE), Is("{}"), "What the group should reach. A drill is judged by `rto`.", "{ rto = \"2s\" }"),
        key(
            "drain",
            Duration(0, HOUR),
            Is("\"5s\""),
            "How long a switchover or drain waits for requests in flight; less than `park.time`, for where one member is hot all others wait \
             meanwhile. Connections of tcp: at most half of `park.time` there. Upgraded connections (WebSocket): not at all there.",
            "\"5s\"",
        ),
        key(
            "stateful",
            Flag,
            Absent("true where one member is hot at a time"),
            "A hot member dies when its node's lease ends, even if hotwarm itself hangs.",
            "true",
        ),
        key(
            "failovers_per_hour",
            Whole(1, 1_000),
            Is("6"),
            "After so many failovers of live members within an hour a person is asked. Others are not counted, and never wait: of a member that ended, or whose node's lease ran out.",
            "6",
        ),
    ],
);

static MODE: Section = plain(
    "mode",
    "Counts of members by role; together as many as there are members.",
    &[
        key(
            "hot",
            Whole(0, 1_000),
            Required,
            "Members that serve. 0 stops a group of one hot member, gently, and keeps the others warm.",
            "2",
        ),
        key("warm", Whole(0, 1_000), Is("0"), "Members that run, in sync, ready to be promoted.", "1"),
        key("spare", Whole(0, 1_000), Is("0"), "Members that are started when needed.", "1"),
    ],
);

static MEMBER: Section = plain(
    "members.NAME",
    "One member in full.",
    &[
        key("node", Name, Absent("the node of the same name"), "Where it runs; two members of a group may share a node.", "\"a\""),
        key("address", Address, Required, "Where it serves: routers and probes connect here.", "\"10.0.0.1:9100\""),
        key("priority", Whole(-1_000, 1_000), Is("0"), "Higher is preferred as hot.", "10"),
        key("weight", Whole(1, 1_000), Is("100"), "Share of the traffic relative to the others.", "50"),
    ],
);

static ENGINE: Section = Section {
    title: "engine",
    doc: "`process` and what belongs to it, or `command`.",
    keys: &[
        key(
            "process",
            Argv,
            Absent("not a supervised program"),
            "A program that stays in the foreground; no shell. See *Environment of members and hooks* below.",
            "[\"nginx\", \"-g\", \"daemon off;\"]",
        ),
        key(
            "command",
            Table(&HOOKS),
            Absent("no hooks"),
            "Your own programs that start, stop and promote the member.",
            "{ start = [\"/opt/x/start\"] }",
        ),
        key("user", Text, Absent("hotwarm's own user"), "The program's user.", "\"www-data\""),
        key("directory", Path, Absent("`/`"), "The program's working directory.", "\"/srv/www\""),
        key(
            "env",
            Map(&Rest { names: "NAME", kind: AnyText }),
            Is("{}"),
            "More environment. Names that begin with HOTWARM_ are taken.",
            "{ LANG = \"C.UTF-8\" }",
        ),
        key(
            "on_role_change",
            Table(&ROLE_CHANGE),
            Absent("the router gates it; allowed for `http` and for `hot-hot`"),
            "How the program learns that it is hot now, or warm.",
            "{ signal = \"SIGUSR1\" }",
        ),
        key("grace", Duration(0, HOUR), Is("\"5s\""), "From SIGTERM to SIGKILL when it is stopped in peace.", "\"5s\""),
        key("start_timeout", Duration(100, HOUR), Is("\"30s\""), "How long it may take to pass its check.", "\"30s\""),
        key("limits", Table(&LIMITS), Is("{}"), "Bounds that the system enforces.", "{ open_files = 65536 }"),
        key("restart", Table(&RESTART), Is("{}"), "When a program that ended by itself is started again.", "{ delay = \"100ms\" }"),
    ],
    rest: None,
    one_of: OneOf::Exactly(&["process", "command"]),
};

static ROLE_CHANGE: Section = Section {
    title: "on_role_change",
    doc: "One of these. A change to hot is to be confirmed within 10 s; one by `restart` within `grace` and `start_timeout` together, if that is longer.",
    keys: &[
        key("signal", Signal, Absent(""), "Send it this signal.", "\"SIGUSR1\""),
        key(
            "http",
            UrlPath,
            Absent(""),
            "POST `{\"role\":\"hot\",\"epoch\":7}` to this path at the member's address; 2xx confirms.",
            "\"/role\"",
        ),
        key("command", Argv, Absent(""), "Run this with the member's environment; exit 0 confirms.", "[\"/opt/ledger/bin/role\"]"),
        key("restart", Flag, Absent(""), "Stop it and start it with the new role in `HOTWARM_ROLE`.", "true"),
    ],
    rest: None,
    one_of: OneOf::Exactly(&["signal", "http", "command", "restart"]),
};

static LIMITS: Section = plain(
    "limits",
    "Bounds on the program and its children.",
    &[
        key("open_files", Whole(16, 16_777_216), Absent("the system's"), "Open files.", "65536"),
        key(
            "memory",
            Size(MIB, 64 * TIB),
            Absent("the system's"),
            "Memory of its own that each process may have (RLIMIT_DATA): what it allocates, not the addresses it reserves.",
            "\"512MiB\"",
        ),
        key("processes", Whole(1, 4_194_304), Absent("the system's"), "Processes and threads of its user.", "512"),
    ],
);

static RESTART: Section = plain(
    "restart",
    "The delay doubles at each try and starts anew once the program was healthy for `delay_max`.",
    &[
        key("delay", Duration(10, HOUR), Is("\"100ms\""), "Before the first try.", "\"100ms\""),
        key("delay_max", Duration(10, HOUR), Is("\"10s\""), "Between tries at most.", "\"10s\""),
    ],
);

static HOOKS: Section = plain(
    "command",
    "Your own programs; no shell. Each runs with the member's environment and must exit within `timeout`; exit 0 confirms.",
    &[
        key("start", Argv, Absent("it is started by something else"), "Start the member, in no serving role.", "[\"/opt/x/start\"]"),
        key(
            "stop",
            Argv,
            Absent("it is stopped by something else"),
            "Stop it; exit 0 means that nothing of it is left.",
            "[\"/opt/x/stop\"]",
        ),
        key("promote", Argv, Absent("nothing to do"), "Make it hot for `HOTWARM_EPOCH`.", "[\"/opt/x/promote\"]"),
        key("demote", Argv, Absent("its fence, if it has one"), "Make it warm.", "[\"/opt/x/demote\"]"),
        key("fence", Argv, Absent("see the group's `fence`"), "Keep it from serving for any older epoch.", "[\"/opt/x/fence\"]"),
        key(
            "position",
            Argv,
            Absent("all are equal"),
            "Print how much of the data it has: one number, larger is newer.",
            "[\"/opt/x/position\"]",
        ),
        key("user", Text, Absent("hotwarm's own user"), "The programs' user.", "\"x\""),
        key(
            "timeout",
            Duration(100, HOUR),
            Is("\"10s\""),
            "How long each may run; a change to hot may take as long, and 10 s at least.",
            "\"10s\"",
        ),
    ],
);

static CHECK: Section = Section {
    title: "check",
    doc: "One of `tcp`, `http`, `command`; without any, `tcp`. The times are upper bounds; where derived timing is faster it wins.",
    keys: &[
        key("tcp", Flag, Absent("see above"), "A connection is accepted.", "true"),
        key("http", UrlPath, Absent("not by HTTP"), "GET this path.", "\"/healthz\""),
        key("status", List(&Whole(100, 599)), Absent("200 to 399"), "Codes of a healthy answer; with `http`.", "[200]"),
        key("body", Text, Absent("any"), "Text that a healthy answer contains within its first 64 KiB; with `http`.", "\"ok\""),
        key("command", Argv, Absent("not by a program"), "Exit code 0 is healthy.", "[\"/opt/x/check\"]"),
        key("every", Duration(10, HOUR), Is("\"1s\""), "Interval between probes.", "\"1s\""),
        key("timeout", Duration(10, HOUR), Is("\"500ms\""), "An answer that takes longer is a failure.", "\"500ms\""),
        key("fall", Whole(1, 100), Is("2"), "Failures in a row until unhealthy.", "2"),
        key("rise", Whole(1, 100), Is("1"), "Successes in a row until healthy.", "1"),
    ],
    rest: None,
    one_of: OneOf::AtMost(&["tcp", "http", "command"]),
};

static BALANCE: Section = plain(
    "balance",
    "Consistent hashing with bounded load.",
    &[key("hash", HashKey, Required, "What decides: a request header (with `http`), or the client's address.", "\"header:x-user\"")],
);

static PARK: Section = plain(
    "park",
    "Past a bound the client gets an immediate, clear error.",
    &[
        key("time", Duration(0, HOUR), Is("\"10s\""), "How long a request waits.", "\"10s\""),
        key("requests", Whole(0, 1_000_000), Is("1000"), "How many wait, on each node.", "1000"),
        key("bytes", Size(0, 16 * GIB), Is("\"16MiB\""), "How much they hold together, on each node.", "\"16MiB\""),
    ],
);

static HTTP: Section = plain(
    "http",
    "Bounds on what clients may send, and what may be repeated. `connections` holds for `tcp` groups too.",
    &[
        key("head", Size(KIB, MIB), Is("\"16KiB\""), "Request line and headers together.", "\"16KiB\""),
        key("headers", Whole(1, 1_000), Is("100"), "Headers of a request.", "100"),
        key("connections", Whole(1, 1_000_000), Is("10000"), "Connections of clients, on each node.", "10000"),
        key(
            "repeat",
            List(&Mark),
            Is("[]"),
            "Requests that a member may get twice without harm: when one fails in the middle they are sent again, or wait, as those with an \
             `Idempotency-Key` do, with up to 64 KiB of body. The path alone, or, where it ends with `/`, all that begin so. The query is not \
             looked at; a path with `%`, `;`, `//` or `..` is never meant. 64 at most.",
            "[\"POST /search\", \"PUT /items/\"]",
        ),
    ],
);

static TIMEOUTS: Section = plain(
    "timeouts",
    "How long a router waits.",
    &[
        key("connect", Duration(10, MINUTE), Is("\"1s\""), "For a connection to a member.", "\"1s\""),
        key("first_byte", Duration(10, DAY), Is("\"60s\""), "For the first byte of a member's answer.", "\"60s\""),
        key("idle", Duration(100, 7 * DAY), Is("\"60s\""), "For anything at all on an open connection.", "\"60s\""),
    ],
);

static FENCE: Section = plain(
    "fence",
    "A program that makes certain that the old hot member no longer serves.",
    &[key(
        "command",
        Argv,
        Required,
        "Exit 0 confirms. It runs with the member's environment, within 30 s or the hooks' `timeout`; if the member's node is lost, on another node.",
        "[\"/usr/local/bin/power-off\"]",
    )],
);

static OBJECTIVE: Section = plain(
    "objective",
    "What cannot be kept is refused, with the smallest that can.",
    &[
        key("rto", Duration(1, DAY), Absent("no objective"), "Recovery time: the longest pause that clients may see.", "\"2s\""),
        key("rpo", Duration(0, DAY), Absent("no objective"), "Recovery point: how much written data may be lost, in time.", "\"0s\""),
        key(
            "false_failovers",
            Rate,
            Absent("no objective"),
            "How many failovers without cause are accepted; more than none. A statement for people: nothing is derived from it, and `check` says so. `failovers_per_hour` bounds those for doubt.",
            "\"1 per month\"",
        ),
    ],
);
