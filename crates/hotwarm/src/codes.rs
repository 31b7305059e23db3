//! The codes of what a user may meet: `HW0104` in a message leads to `docs/reference/errors/HW0104.md`.
//!
//! One table for the whole program. It must never reuse a number: a retired code keeps its page. A test checks that each code has a page and
//! each page a code. The first two digits tell the family: `Code::family`.

use std::fmt;

use serde::{Serialize, Serializer};

/// A code, printed as `HW` and four digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(u16);

macro_rules! codes {
    ($($name:ident = $number:literal, $title:literal;)+) => {
        impl Code {
            $(#[doc = $title] pub const $name: Self = Self($number);)+

            /// Every code, in order of number.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// What it is about, as the first line of its page says it.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self.0 {
                    $($number => $title,)+
                    _ => "unknown code",
                }
            }
        }
    };
}

codes! {
    UNREADABLE_CONFIG = 1, "the configuration file cannot be read";
    FILE_EXISTS = 2, "a file is already there";
    NODE_UNKNOWN = 3, "this node's name is not known";
    NOT_PERMITTED = 4, "the file system refuses";
    API_UNREACHABLE = 5, "the node's API does not answer";
    SYNTAX = 101, "the file is not TOML";
    UNKNOWN_KEY = 102, "a key that hotwarm does not know";
    MISSING_KEY = 103, "a key that must be there is missing";
    WRONG_TYPE = 104, "a value of the wrong type";
    BAD_VALUE = 105, "a value that cannot be used";
    BAD_NAME = 106, "a name that cannot be used";
    CHOOSE_ONE = 107, "keys that exclude each other";
    UNKNOWN_NODE = 108, "a node that the cluster does not have";
    WITNESS_HOSTS = 109, "a witness is given work";
    ADDRESS_IN_USE = 110, "two things want the same address";
    UNREACHABLE_ADDRESS = 111, "an address that others cannot reach";
    ROLE_COUNTS = 112, "the mode and the members do not fit";
    ROLE_CHANGE_UNHEARD = 113, "the member would not hear of its role";
    FENCE_MISSING = 114, "nothing would stop the old hot member";
    FENCE_WRONG = 115, "a fence that does not fit";
    RPO_WITHOUT_DATA = 116, "an rpo for data that hotwarm does not keep";
    RTO_TOO_SMALL = 117, "an rto that lease or disk do not allow";
    API_EXPOSED = 118, "the API would be open to others";
    LEASE_TOO_SHORT = 119, "the lease is too short for the heartbeat";
    NOT_FOR_PROTOCOL = 120, "a setting that this protocol does not have";
    NO_VOTER = 121, "nobody could vote";
    DATA_DIRECTORY = 122, "a directory that cannot be the data directory";
    OTHER_NODES_ADDRESS = 123, "a member at another node's address";
    NO_HOST = 124, "no voter could hold a member";
    API_TOKEN = 125, "the API's token cannot be used";
    EVEN_VOTERS = 151, "an even number of voters";
    TWO_NODES = 152, "two nodes without a witness";
    ONE_NODE = 153, "one node only";
    NO_LISTENER = 154, "a group without a listener";
    ROUTER_ONLY = 155, "direct clients may reach an old hot member";
    ONE_ADDRESS = 156, "one node's address for the listeners of all";
    NOT_STATEFUL = 157, "an old hot member may outlive its lease";
    PARK_TOO_SHORT = 158, "requests would not wait long enough";
    JOIN_FILE = 201, "a join file that cannot be used";
    CA_KEY = 202, "a CA key that cannot be used";
    CERTIFICATE = 203, "a certificate that cannot be used";
    OTHER_CLUSTER = 204, "this node belongs to another cluster";
    CERTIFICATE_ENDS = 205, "a certificate is about to expire";
    PEER_UNREADABLE = 301, "a peer's message is not understood";
    REPLICA_NOT_STARTED = 302, "the replica does not start";
    STATE_UNREADABLE = 303, "the leader's state cannot be read";
    ENTRY_UNREADABLE = 304, "an entry of the log cannot be read";
    RULE_BROKEN = 305, "a safety rule is broken";
    WRONG_CLUSTER = 306, "a node of another cluster knocks";
    NOT_CONFIGURED = 307, "an unknown node knocks";
    LOG_MESSAGE_REFUSED = 308, "a peer's log message is refused";
    STATES_DIFFER = 309, "two nodes' states differ";
    TOO_OLD = 310, "a node's program is too old";
    LOST_RECORDS = 311, "this node lost records it had acknowledged";
    ALREADY_FOUNDED = 312, "a cluster is there already";
    NOT_FOUNDED = 313, "the cluster is not founded yet";
    NOT_THERE = 401, "no such thing in this cluster";
    BAD_REQUEST = 402, "a request that the API does not understand";
    NO_LEADER = 403, "no leader, because the quorum is not reached";
    UNCONFIRMED = 404, "it is not known whether it was done";
    BUSY = 405, "too much at once";
    SWITCHOVER_REFUSED = 406, "the switchover cannot be";
    CONFIGURATION_REFUSED = 407, "the cluster refuses the configuration";
    CONFIGURATION_WRONG = 408, "the configuration is wrong";
    OTHER_NODE = 409, "only the member's own node can tell";
    API_ADDRESS = 410, "the API cannot listen";
    NOT_CONFIRMED_BY_YOU = 411, "it asks first, and nobody answered";
    STILL_NEEDED = 412, "the node is still needed";
    NOTHING_TO_ACCEPT = 413, "no engine here keeps data";
    STILL_ALIVE = 414, "a node that is said to be lost answers";
    NOT_RECOVERABLE = 415, "no state to recover from";
    NOT_OVER = 416, "it was begun, and is not over";
    API_DEFECT = 417, "an answer that was not expected";
    DRILL_TARGET = 418, "the fault does not fit the target";
    DRILL_ELSEWHERE = 419, "a drill strikes its own machine only";
    DRILL_SHOWS_NOTHING = 420, "the drill would show nothing";
    DRILL_FAULT = 421, "the fault is not made, or not undone";
    DRILL_NOT_WHOLE = 422, "the cluster is not whole after the drill";
    RESTART_REFUSED = 423, "the restart cannot be";
    RESTART_STOPPED = 424, "the restart stopped before all were restarted";
    TOKEN_ASKED = 425, "the API asks for its token";
    API_NOT_TRUSTED = 426, "what answers is not shown to be a node of the cluster";
    DISK_FAILED = 501, "the disk failed under the log";
    LOG_FULL = 502, "the write-ahead log takes no more";
    ROUTES_REFUSED = 503, "the router refuses routes";
    CONFIG_IN_FORCE_UNREADABLE = 504, "the configuration in force cannot be read here";
    PEERS_REFUSED = 505, "the peers' addresses are refused";
    LISTENER_REFUSED = 506, "a group's listener does not open";
    CLUSTER_NOT_REMEMBERED = 507, "the cluster's identity was not written";
    DISK_LOW = 508, "little room on the disk of the data directory";
    LEASE_ENDED = 509, "this node holds no lease";
    HOOK_FAILED = 510, "a hook of a member fails";
    ANSWERS_5XX = 511, "a member answers with 5xx";
    REQUEST_MALFORMED = 801, "the request is not HTTP/1.1";
    METHOD_NOT_OFFERED = 802, "the method is not offered";
    VERSION_NOT_SPOKEN = 803, "the HTTP version is not spoken";
    EXPECTATION_NOT_KNOWN = 804, "the expectation is not known";
    HEAD_TOO_LARGE = 805, "the request's head is too large";
    HEAD_TOO_SLOW = 806, "the request's head did not come in time";
    PARKED_TOO_LONG = 807, "the request waited too long";
    PARK_FULL = 808, "too many requests wait";
    TOO_MANY_CONNECTIONS = 809, "too many connections";
    OUTCOME_UNKNOWN_BROKEN = 810, "sent, and the connection broke";
    OUTCOME_UNKNOWN_REPLACED = 811, "sent, and the member was replaced";
    OUTCOME_UNKNOWN_SLOW = 812, "sent, and no reply in time";
    REPLY_MALFORMED = 813, "the member's reply is not HTTP/1.1";
    LISTENER_CLOSED = 814, "the listener is closed";
    HOT_MEMBER_UNREACHED = 815, "this router cannot reach the hot member";
}

impl Code {
    /// The code that is printed as `text`, if this program knows it.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.to_string() == text)
    }

    /// The page that lists all of them, as Markdown.
    #[must_use]
    pub fn index() -> String {
        let mut page = String::from(
            "# Errors\n\n<!-- Generated from crates/hotwarm/src/codes.rs; do not edit. `scripts/fix` writes it anew. -->\n\n\
             Every code, and what it is about. Its page says what it means and what to do.\n",
        );
        let mut family = None;
        for code in Self::ALL {
            if family != Some(code.0 / 100) {
                family = Some(code.0 / 100);
                page.push_str(&format!("\n## {}\n\n| code | what |\n|---|---|\n", code.family()));
            }
            page.push_str(&format!("| [{code}]({code}.md) | {} |\n", code.title()));
        }
        page
    }

    /// What codes that begin alike have in common.
    const fn family(self) -> &'static str {
        match self.0 / 100 {
            0 => "HW00: the command line",
            1 => "HW01: the configuration",
            2 => "HW02: keys, certificates, join files",
            3 => "HW03: what a node finds in the log and in its peers",
            4 => "HW04: the API and the commands that use it",
            5 => "HW05: a running node",
            8 => "HW08: what the router answers",
            _ => "others",
        }
    }

    /// Where its page is, from the root of the documentation's repository.
    #[must_use]
    pub fn page(self) -> String {
        format!("docs/reference/errors/{self}.md")
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HW{:04}", self.0)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::Code;

    #[test]
    fn each_code_has_a_page_and_each_page_a_code() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/errors");
        let pages: BTreeSet<String> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("HW"))
            .collect();
        let codes: BTreeSet<String> = Code::ALL.iter().map(|code| format!("{code}.md")).collect();
        assert_eq!(codes.len(), Code::ALL.len(), "two codes share a number");
        assert_eq!(pages, codes);
        for code in Code::ALL {
            let page = std::fs::read_to_string(folder.join(format!("{code}.md"))).unwrap();
            assert_eq!(page.lines().next().unwrap(), format!("# {code}: {}", code.title()));
            assert_ne!(code.family(), "others", "{code}: say what its family is about");
        }
    }

    #[test]
    fn the_index_lists_every_code() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/errors/README.md");
        if std::env::var_os("HOTWARM_REGENERATE").is_some_and(|value| value == "1") {
            std::fs::write(&path, Code::index()).unwrap();
        }
        let file = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(file == Code::index(), "{} is not what the code says; run scripts/fix and look at the difference", path.display());
    }
}
