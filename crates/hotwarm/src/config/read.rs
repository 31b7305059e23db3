//! From TOML text to values of the schema's kinds, each with its place; every wrong key and value is reported, none stops the pass.
//!
//! Main path: [`read`] -> `Reader::table` for each table -> `Reader::value` for each key. What is wrong leaves a hole (`None`) that was reported
//! already, so that later passes need not speak of it again; a key with a default never leaves one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::diagnostic::{Findings, Span};
use super::mark::Mark;
use super::schema::{FILE, Key, Kind, OneOf, Rest, Section, Unset};
use super::units;
use crate::codes::Code;

/// A table as read: its known keys, and the others where the schema allows them.
#[derive(Debug)]
pub(super) struct Table {
    /// Its header or its key: where errors about the table as a whole point to.
    pub(super) span: Span,
    fields: BTreeMap<&'static str, Field>,
    pub(super) rest: Vec<Entry>,
    /// Keys that an unknown one was probably meant to be: nobody need be told that they are missing.
    meant: Vec<&'static str>,
}

#[derive(Debug)]
pub(super) struct Field {
    /// The value's place; the table's where the default was taken.
    pub(super) span: Span,
    pub(super) given: bool,
    pub(super) value: Option<Value>,
}

/// A key that the user named, or an item of a list.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) name_span: Span,
    pub(super) span: Span,
    pub(super) value: Option<Value>,
}

#[derive(Debug)]
pub(super) enum Value {
    Flag(bool),
    Whole(i64),
    Duration(Duration),
    Size(u64),
    Rate(f64),
    Address(SocketAddr),
    Text(String),
    Argv(Vec<String>),
    Entries(Vec<Entry>),
    Table(Table),
}

macro_rules! getters {
    ($($name:ident: $variant:ident -> $type:ty;)+) => {
        impl Value {
            $(pub(super) fn $name(&self) -> Option<&$type> {
                match self { Self::$variant(value) => Some(value), _ => None }
            })+
        }
        impl Table {
            $(pub(super) fn $name(&self, key: &str) -> Option<&$type> {
                self.field(key).value.as_ref().and_then(Value::$name)
            })+
        }
    };
}

getters! {
    flag: Flag -> bool;
    whole: Whole -> i64;
    duration: Duration -> Duration;
    size: Size -> u64;
    rate: Rate -> f64;
    address: Address -> SocketAddr;
    text: Text -> str;
    argv: Argv -> [String];
    entries: Entries -> [Entry];
    table: Table -> Table;
}

impl Table {
    /// The field of a key of the schema.
    pub(super) fn field(&self, key: &str) -> &Field {
        self.fields.get(key).expect("only keys of the schema are asked for, and each of them is read")
    }

    pub(super) fn given(&self, key: &str) -> bool {
        self.field(key).given
    }

    /// True if the key is neither there nor probably misspelt.
    pub(super) fn lacks(&self, key: &str) -> bool {
        !self.given(key) && !self.meant.contains(&key)
    }
}

/// Reads the whole file. `None` where it is not TOML.
pub(super) fn read(text: &str, findings: &mut Findings) -> Option<Table> {
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        findings
            .error(Code::SYNTAX, &error.span().unwrap_or(0..0), format!("not TOML: {}", error.message()))
            .hint("everything else in the file is checked once it can be read");
    }
    if !errors.is_empty() {
        return None;
    }
    Some(Reader { findings, given: true }.table(&FILE, "the file", 0..0, root.get_ref()))
}

/// The error about an unknown `word`, with the nearest of `known`.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase().replace('_', "-");
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.replace('_', "-")), name))
        // Of a word of which nothing is left, nothing is meant.
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4 && *distance < name.chars().count().max(lower.chars().count()))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

struct Reader<'f> {
    findings: &'f mut Findings,
    /// False while defaults are read.
    given: bool,
}

impl Reader<'_> {
    /// `path` is how a person would call the table: `[group.web]`, `park in [group.web]`.
    fn table(&mut self, section: &'static Section, path: &str, span: Span, table: &DeTable<'_>) -> Table {
        let (mut rest, mut meant) = (Vec::new(), Vec::new());
        for (name, value) in table {
            if section.keys.iter().any(|key| key.name == name.get_ref()) {
                continue;
            }
            match &section.rest {
                Some(more) if matches!(value.get_ref(), DeValue::Table(_)) => rest.push(self.entry(more, path, name, value)),
                _ => meant.extend(self.unknown(section, path, name)),
            }
        }
        let fields = section.keys.iter().map(|key| (key.name, self.field(key, path, &span, table, &meant))).collect();
        let table = Table { span, fields, rest, meant };
        self.one_of(section, path, &table);
        table
    }

    fn field(&mut self, key: &'static Key, path: &str, span: &Span, table: &DeTable<'_>, meant: &[&str]) -> Field {
        if let Some((name, value)) = table.get_key_value(key.name) {
            let value_span = match value.get_ref() {
                // The place of a table is its header: its content may be many lines.
                DeValue::Table(_) => name.span(),
                _ => value.span(),
            };
            let read = self.value(&key.kind, &inner(path, key.name), &name.span(), value);
            let fallback = || self.default(key, &value_span);
            return Field { value: read.or_else(fallback), span: value_span, given: self.given };
        }
        if matches!(key.default, Unset::Required) && !meant.contains(&key.name) {
            self.findings
                .error(Code::MISSING_KEY, span, format!("`{}` is missing in {path}", key.name))
                .expected(format!("{} = {}", key.name, key.example))
                .hint(key.doc);
        }
        Field { value: self.default(key, span), span: span.clone(), given: false }
    }

    fn default(&mut self, key: &'static Key, span: &Span) -> Option<Value> {
        let Unset::Is(text) = key.default else { return None };
        let value = DeValue::parse(text).expect("a test parses every default of the schema");
        let mut reader = Reader { findings: &mut *self.findings, given: false };
        reader.value(&key.kind, key.name, span, &Spanned::new(span.clone(), value.into_inner()))
    }

    fn entry(&mut self, rest: &'static Rest, path: &str, name: &Spanned<DeString<'_>>, value: &Spanned<DeValue<'_>>) -> Entry {
        let span = if matches!(value.get_ref(), DeValue::Table(_)) { name.span() } else { value.span() };
        let here = if rest.names == "group" { format!("[group.{}]", name.get_ref()) } else { inner(path, name.get_ref()) };
        if rest.names != "NAME" && !units::is_name(name.get_ref()) {
            self.findings
                .error(Code::BAD_NAME, &name.span(), format!("`{}` is not a name for a {}", name.get_ref(), rest.names))
                .expected("1 to 32 of a-z, 0-9, -");
        }
        let value = self.value(&rest.kind, &here, &name.span(), value);
        Entry { name: name.get_ref().clone().into_owned(), name_span: name.span(), span, value }
    }

    fn value(&mut self, kind: &'static Kind, path: &str, key_span: &Span, value: &Spanned<DeValue<'_>>) -> Option<Value> {
        if let Kind::Either(kinds) = kind {
            let Some(kind) = kinds.iter().find(|kind| fits(kind, value.get_ref())) else {
                return self.wrong_type(kind, path, value);
            };
            return self.value(kind, path, key_span, value);
        }
        match (kind, value.get_ref()) {
            (Kind::Table(section), DeValue::Table(table)) => Some(Value::Table(self.table(section, path, key_span.clone(), table))),
            (Kind::Map(rest), DeValue::Table(table)) => {
                Some(Value::Entries(table.iter().map(|(name, value)| self.entry(rest, path, name, value)).collect()))
            }
            (Kind::List(item), DeValue::Array(array)) => {
                let entry = |value: &Spanned<DeValue<'_>>| Entry {
                    name: value.get_ref().as_str().unwrap_or_default().to_owned(),
                    name_span: value.span(),
                    span: value.span(),
                    value: self.value(item, path, &value.span(), value),
                };
                Some(Value::Entries(array.iter().map(entry).collect()))
            }
            (Kind::Argv, DeValue::Array(array)) => self.argv(kind, path, &value.span(), array),
            (Kind::Flag, DeValue::Boolean(flag)) => Some(Value::Flag(*flag)),
            (Kind::Whole(min, max), DeValue::Integer(number)) => {
                let read = i64::from_str_radix(number.as_str(), number.radix()).ok().filter(|n| (min..=max).contains(&n));
                read.map(Value::Whole).or_else(|| self.bad_value(kind, path, &value.span(), "it is out of range", None))
            }
            (_, DeValue::String(text)) if is_string(kind) => match string(kind, text) {
                Ok(read) => Some(read),
                Err(why) => {
                    self.bad_value(kind, path, &value.span(), &why, choices(kind).and_then(|all| nearest(text, all.iter().copied())))
                }
            },
            _ => self.wrong_type(kind, path, value),
        }
    }

    fn argv(&mut self, kind: &'static Kind, path: &str, span: &Span, array: &[Spanned<DeValue<'_>>]) -> Option<Value> {
        let mut argv = Vec::new();
        for word in array {
            match word.get_ref() {
                DeValue::String(word) if !word.contains('\0') => argv.push(word.clone().into_owned()),
                _ => return self.wrong_type(kind, path, word),
            }
        }
        if argv.first().is_none_or(String::is_empty) {
            return self.bad_value(kind, path, span, "it names no program", None);
        }
        if argv[0].contains('/') && !argv[0].starts_with('/') {
            let why = format!("`{}` would be looked for below a working directory", argv[0]);
            return self.bad_value(kind, path, &array[0].span(), &why, None);
        }
        Some(Value::Argv(argv))
    }

    fn unknown(&mut self, section: &'static Section, path: &str, name: &Spanned<DeString<'_>>) -> Option<&'static str> {
        let known = section.names();
        let finding = self
            .findings
            .error(Code::UNKNOWN_KEY, &name.span(), format!("unknown key `{}` in {path}", name.get_ref()))
            .expected(format!("one of {}", known.join(", ")));
        let near = nearest(name.get_ref(), known)?;
        finding.hint(format!("did you mean `{near}`?"));
        Some(near)
    }

    fn wrong_type(&mut self, kind: &'static Kind, path: &str, value: &Spanned<DeValue<'_>>) -> Option<Value> {
        let found = match value.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a point",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.findings.error(Code::WRONG_TYPE, &value.span(), format!("{path} is {found}")).expected(format!("expected {}", kind.words()));
        None
    }

    fn bad_value(&mut self, kind: &'static Kind, path: &str, span: &Span, why: &str, near: Option<&str>) -> Option<Value> {
        let code = if matches!(kind, Kind::Name) { Code::BAD_NAME } else { Code::BAD_VALUE };
        if matches!(kind, Kind::SecretFile) {
            self.findings.hide(span);
        }
        let finding = self.findings.error(code, span, format!("{path} cannot be used: {why}"));
        finding.expected(format!("expected {}", kind.words()));
        if let Some(near) = near {
            finding.hint(format!("did you mean \"{near}\"?"));
        }
        None
    }

    fn one_of(&mut self, section: &'static Section, path: &str, table: &Table) {
        let (names, needed) = match section.one_of {
            OneOf::Free => return,
            OneOf::Exactly(names) => (names, true),
            OneOf::AtMost(names) => (names, false),
        };
        let given: Vec<_> = names.iter().filter(|name| table.given(name)).collect();
        match given.as_slice() {
            [] if needed && names.iter().all(|name| table.lacks(name)) => {
                self.findings
                    .error(Code::MISSING_KEY, &table.span, format!("{path} says nothing"))
                    .expected(format!("one of {}", names.join(", ")));
            }
            [first, more @ ..] => {
                for second in more {
                    let message = format!("`{second}` and `{first}` exclude each other in {path}");
                    let span = table.field(second).span.clone();
                    self.findings.error(Code::CHOOSE_ONE, &span, message).expected(format!("keep one of {}", names.join(", ")));
                }
            }
            [] => {}
        }
    }
}

/// `park` inside `[group.web]` is called `park in [group.web]`; `time` inside that, `park.time in [group.web]`.
fn inner(path: &str, key: &str) -> String {
    if path == "the file" {
        return format!("[{key}]");
    }
    match path.split_once(" in ") {
        Some((outer, section)) => format!("{outer}.{key} in {section}"),
        None => format!("{key} in {path}"),
    }
}

fn is_string(kind: &Kind) -> bool {
    !matches!(kind, Kind::Flag | Kind::Whole(..) | Kind::Argv | Kind::List(_) | Kind::Map(_) | Kind::Table(_) | Kind::Either(_))
}

fn fits(kind: &Kind, value: &DeValue<'_>) -> bool {
    match value {
        DeValue::String(_) => is_string(kind),
        DeValue::Table(_) => matches!(kind, Kind::Table(_) | Kind::Map(_)),
        DeValue::Array(_) => matches!(kind, Kind::List(_) | Kind::Argv),
        DeValue::Integer(_) => matches!(kind, Kind::Whole(..)),
        DeValue::Boolean(_) => matches!(kind, Kind::Flag),
        DeValue::Float(_) | DeValue::Datetime(_) => false,
    }
}

fn choices(kind: &Kind) -> Option<&'static [&'static str]> {
    match kind {
        Kind::Choice(all) => Some(all),
        _ => None,
    }
}

/// A string value of one of the kinds that are written as strings.
fn string(kind: &Kind, text: &str) -> Result<Value, String> {
    let owned = || Value::Text(text.to_owned());
    let within = |is: bool| if is { Ok(()) } else { Err(String::from("it is out of range")) };
    if text.contains('\0') {
        return Err("it contains a zero byte".into());
    }
    match kind {
        Kind::Duration(min, max) => {
            let ms = units::duration_ms(text)?;
            within((*min..=*max).contains(&ms)).map(|()| Value::Duration(Duration::from_millis(ms)))
        }
        Kind::Size(min, max) => {
            let bytes = units::size_bytes(text)?;
            within((*min..=*max).contains(&bytes)).map(|()| Value::Size(bytes))
        }
        Kind::Rate => units::rate_per_month(text).map(Value::Rate),
        Kind::Address => address(text).map(Value::Address),
        Kind::Name if !units::is_name(text) => Err(format!("`{text}` is not a name")),
        Kind::Path | Kind::SecretFile if !text.starts_with('/') => Err("it does not begin with /".into()),
        Kind::UrlPath if !text.starts_with('/') || text.bytes().any(|b| b <= b' ' || b >= 0x7f) => {
            Err("it does not begin with / or holds a character that a URL does not".into())
        }
        Kind::Signal if units::signal(text).is_none() => Err(format!("`{text}` is not a signal for this")),
        Kind::Mark => Mark::read(text).map(|_| owned()),
        Kind::HashKey if !is_hash_key(text) => Err(format!("`{text}` is neither")),
        Kind::Choice(all) if !all.contains(&text) => Err(format!("`{text}` is none of them")),
        Kind::Text if text.is_empty() => Err("it is empty".into()),
        _ => Ok(owned()),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return if address.port() == 0 { Err("port 0 is no port".into()) } else { Ok(address) };
    }
    Err(match text.rsplit_once(':') {
        None => "a port is missing".into(),
        Some((host, port)) if port.parse::<u16>().is_err() => format!("`{port}` after `{host}:` is no port"),
        Some((host, _)) => format!("`{host}` is not an IP address (a name could not be resolved when it is needed most)"),
    })
}

fn is_hash_key(text: &str) -> bool {
    let token = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    text == "client-ip" || text.strip_prefix("header:").is_some_and(token)
}
