//! What the user marks as safe to repeat (S20): a method with a path, as the file writes it, and whether a request is meant by it.
//!
//! It must never mean a request that was not written down: what two readers could take for different paths is meant by no mark. The main
//! path: [`Mark::read`] for each item of `repeat`, then [`Mark::means`] for each request.

/// How many marks a group may have.
pub(super) const MARKS_MAX: usize = 64;
/// The longest text of one.
const TEXT_MAX: usize = 256;

/// Requests that may be repeated: `POST /search` is that path alone, `PUT /items/` every path that begins so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    method: String,
    path: String,
}

impl Mark {
    /// From the text of the file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        if text.len() > TEXT_MAX {
            return Err(format!("it has {} bytes, {TEXT_MAX} at most", text.len()));
        }
        let (method, path) = text.split_once(' ').ok_or("it is not a method, one space and a path")?;
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
            return Err(format!("`{method}` is not a method: those are written in capitals"));
        }
        if method == "CONNECT" {
            return Err("CONNECT is offered by no router".into());
        }
        if !path.starts_with('/') {
            return Err(format!("`{path}` does not begin with /"));
        }
        if path.contains('?') {
            return Err("queries are not looked at: leave out ? and what follows".into());
        }
        if !is_plain(path) {
            return Err(format!(
                "`{path}` is not a plain path: no escape by %, none of ; \\ and their like, no segment that is empty, . or .."
            ));
        }
        Ok(Self { method: method.to_owned(), path: path.to_owned() })
    }

    /// True if a request with this method and target (path and query) is meant. A path that is not plain is meant by no mark: a member may
    /// take `/items/%2e%2e/orders` for `/orders`.
    #[must_use]
    pub fn means(&self, method: &str, target: &str) -> bool {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let is_named = if self.path.ends_with('/') { path.starts_with(&self.path) } else { path == self.path };
        self.method == method && is_named && is_plain(path)
    }
}

/// True if every server reads this path alike: single slashes, no dot segments, nothing escaped, and no character that some cut a path
/// at (`;`) or take for a slash (`\`).
fn is_plain(path: &str) -> bool {
    let Some(segments) = path.strip_prefix('/') else { return false };
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@/".contains(&byte);
    let end = segments.strip_suffix('/').unwrap_or(segments);
    path.bytes().all(good) && (segments.is_empty() || end.split('/').all(|segment| !matches!(segment, "" | "." | "..")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(text: &str) -> Mark {
        Mark::read(text).unwrap()
    }

    #[test]
    fn a_mark_means_its_path_or_with_a_last_slash_all_that_begin_so() {
        let search = mark("POST /search");
        for target in ["/search", "/search?q=1", "/search?q=%2e%2e/..;//#"] {
            assert!(search.means("POST", target), "{target}");
        }
        for target in ["/", "/searching", "/search/", "/search/x", "/Search", "/a/search", "/searc", "", "*", "?/search", "/?/search"] {
            assert!(!search.means("POST", target), "{target}");
        }
        for method in ["GET", "PUT", "post", "POSTS", ""] {
            assert!(!search.means(method, "/search"), "{method}");
        }
        let items = mark("PUT /items/");
        for target in ["/items/", "/items/1", "/items/1/", "/items/a/b.c/...?x", "/items/v1:do@(x),y=z"] {
            assert!(items.means("PUT", target), "{target}");
        }
        for target in ["/items", "/items?/", "/itemss/1", "/x/items/1", "/"] {
            assert!(!items.means("PUT", target), "{target}");
        }
        assert!(mark("DELETE /").means("DELETE", "/any/path") && mark("DELETE /").means("DELETE", "/"));
    }

    /// Each is `/orders` or another path beside `/items/` to some server.
    #[test]
    fn what_servers_read_differently_is_meant_by_no_mark() {
        let (items, all) = (mark("PUT /items/"), mark("PUT /"));
        for path in [
            "/items/../orders",
            "/items/x/../../orders",
            "/items/..",
            "/items/../",
            "/items/.",
            "/items/./x",
            "/items/%2e%2e/orders",
            "/items/%2E./orders",
            "/items/%252e%252e/orders",
            "/items/..%2forders",
            "/items/%2",
            "/items/%41",
            "/items/..;/orders",
            "/items/..;a=b/orders",
            "/items/;x/orders",
            "/items/..\\orders",
            "/items\\..\\orders",
            "/items//orders",
            "/items///",
            "//items/1",
            "/items/\u{e9}",
            "/items/%c0%ae%c0%ae/orders",
            "/items/|",
            "/items/\"",
            "/items/#/../orders",
            "http://h/items/1",
        ] {
            assert!(!items.means("PUT", path) && !all.means("PUT", path), "{path}");
        }
    }

    #[test]
    fn what_is_no_mark_is_refused_and_told_why() {
        let long = format!("POST /{}", "x".repeat(TEXT_MAX));
        for (text, why) in [
            ("", "one space"),
            ("/search", "one space"),
            ("POST", "one space"),
            ("post /search", "capitals"),
            (" /search", "capitals"),
            ("* /search", "capitals"),
            ("CONNECT /", "no router"),
            ("POST search", "begin with /"),
            ("POST  /search", "begin with /"),
            ("POST /search ", "plain"),
            ("POST /search?q", "queries"),
            ("POST /a/../b", "plain"),
            ("POST //", "plain"),
            ("POST /%61", "plain"),
            ("POST /a;b", "plain"),
            ("POST /search*\n", "plain"),
            (long.as_str(), "256 at most"),
        ] {
            let said = Mark::read(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
