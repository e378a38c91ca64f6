//! Keys as clean absolute paths: `/a/b`, and nothing at all for the root.

/// Deeper keys are refused: what is nested is written out by recursion.
pub const MAX_DEPTH: usize = 256;

/// Resolves what is empty, `.` and `..`; nothing leads above the root.
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    let mut out = String::with_capacity(path.len() + 1);
    for part in parts {
        out.push('/');
        out.push_str(part);
    }
    out
}

pub fn depth(path: &str) -> usize {
    path.bytes().filter(|byte| *byte == b'/').count()
}

/// The directory that `path` lies in.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// `/a`, `/a/b`, `/a/b/c` of `/a/b/c`.
pub fn ancestors_and_self(path: &str) -> impl Iterator<Item = &str> {
    let ends = path
        .char_indices()
        .filter(|(place, letter)| *letter == '/' && *place > 0)
        .map(|(place, _)| place);
    let whole = (!path.is_empty()).then_some(path.len());
    ends.chain(whole).map(|end| &path[..end])
}

/// Whether a key is hidden by its own name.
pub fn is_hidden(path: &str) -> bool {
    path.rsplit_once('/')
        .is_some_and(|(_, name)| name.starts_with('_'))
}

/// Whether some name of `key` below `from` hides it from who watches `from`.
pub fn is_hidden_below(from: &str, key: &str) -> bool {
    key.get(from.len()..).is_some_and(|below| below.contains("/_"))
}

/// Whether `path` is below the directory `dir`.
pub fn is_below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_and_stay_below_the_root() {
        for (given, want) in [
            ("", ""),
            ("/", ""),
            ("//a/./b//", "/a/b"),
            ("/../../x", "/x"),
            ("/a/../b", "/b"),
            ("a", "/a"),
        ] {
            assert_eq!(clean(given), want, "{given}");
        }
    }

    #[test]
    fn a_path_has_its_parts() {
        assert_eq!(
            ancestors_and_self("/a/b/c").collect::<Vec<_>>(),
            ["/a", "/a/b", "/a/b/c"]
        );
        assert_eq!(ancestors_and_self("").count(), 0);
        assert_eq!((parent("/a/b"), parent("/a"), depth("/a/b")), ("/a", "", 2));
        assert!(is_hidden("/a/_b") && !is_hidden("/_a/b"));
        assert!(is_hidden_below("", "/_a/b") && !is_hidden_below("/_a", "/_a/b"));
        assert!(is_below("/a/b", "/a") && !is_below("/ab", "/a") && is_below("/a", ""));
    }
}
