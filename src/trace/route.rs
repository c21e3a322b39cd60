//! Routes from targets: `/users/17/orders?all=1` is `/users/{id}/orders`.
//!
//! What collapses is only what cannot be a route's own word: a whole number, a UUID, eight or more hexadecimal
//! digits. Real routes are never put together because there are many: a service that has more than
//! [`MAX_ROUTES`] keeps those that came first, and requests to others have no route. Then a span's name is its
//! method alone, as the conventions have it where no route is known; that is counted. Paths that nothing
//! was found at are no routes, so that somebody who tries paths does not use up the room.

use foldhash::{HashMap, HashSet};

use crate::model::span::Text;

/// Routes that one service may have.
pub const MAX_ROUTES: usize = 200;
/// Services whose routes are kept.
const MAX_SERVICES: usize = 4096;
/// Longest path that may be a route.
const MAX_PATH_BYTES: usize = 1024;
/// Shortest run of hexadecimal digits that is no word.
const MIN_HEX_DIGITS: usize = 8;

/// The path of a target, without query and fragment: origin form, `*`, or that of a whole URL (RFC 9112
/// section 3.2). `None` if it has none.
#[must_use]
pub fn path(target: &str) -> Option<&str> {
    let end = target.find(['?', '#']).unwrap_or(target.len());
    let without_query = target.get(..end)?;
    if without_query.starts_with('/') || without_query == "*" {
        return Some(without_query);
    }
    let (scheme, rest) = without_query.split_once("://")?;
    if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    {
        return None;
    }
    Some(rest.find('/').and_then(|begin| rest.get(begin..)).unwrap_or("/"))
}

/// The query of a target, without its question mark and without a fragment.
#[must_use]
pub fn query(target: &str) -> Option<&str> {
    let (_, query) = target.split_once('?')?;
    Some(query.split_once('#').map_or(query, |(query, _)| query))
}

/// A path with its ids taken out; `None` if it is too long to be told by a name. Percent-encoded characters
/// stay as they are. O(bytes), and nothing is allocated for short ones: this is done for every request.
#[must_use]
pub fn template(path: &str) -> Option<Text> {
    if path.len() > MAX_PATH_BYTES {
        return None;
    }
    let mut template: Option<Text> = None;
    let mut begin = 0;
    for segment in path.as_bytes().split(|&byte| byte == b'/') {
        let end = begin + segment.len();
        let is_id = is_id(segment);
        if is_id && template.is_none() {
            template = path.get(..begin).map(Text::from);
        }
        if let Some(template) = &mut template {
            template.push_str(if is_id { "{id}" } else { path.get(begin..end)? });
            if end < path.len() {
                template.push('/');
            }
        }
        begin = end + 1;
    }
    Some(template.unwrap_or_else(|| Text::from(path)))
}

/// Whether a segment is a whole number, a UUID, or hexadecimal digits that are no word.
fn is_id(segment: &[u8]) -> bool {
    // Most words are told by their first letter.
    if !segment.first().is_some_and(|first| first.is_ascii_hexdigit() || *first == b'-') {
        return false;
    }
    let digits = segment.strip_prefix(b"-").unwrap_or(segment);
    if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) {
        return true;
    }
    if segment.len() >= MIN_HEX_DIGITS && segment.iter().all(u8::is_ascii_hexdigit) {
        return true;
    }
    is_uuid(segment)
}

/// 8-4-4-4-12 digits (RFC 9562 section 4).
fn is_uuid(segment: &[u8]) -> bool {
    segment.len() == 36
        && segment.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// The routes of all services, so that there are not too many.
#[derive(Debug, Default)]
pub struct Routes {
    services: HashMap<Text, HashSet<Text>>,
    refused: u64,
}

impl Routes {
    /// Whether the [template](template) of a request's path is a route of this service, from now on if not before.
    /// `is_found`: the answer does not say that nothing is there (404, 405, 400, …).
    pub fn takes(&mut self, service: &str, template: &str, is_found: bool) -> bool {
        if self.services.get(service).is_some_and(|routes| routes.contains(template)) {
            return true;
        }
        if !is_found {
            return false;
        }
        let is_full = match self.services.get(service) {
            Some(routes) => routes.len() >= MAX_ROUTES,
            None => self.services.len() >= MAX_SERVICES,
        };
        if is_full {
            self.refused += 1;
            return false;
        }
        self.services.entry(Text::from(service)).or_default().insert(Text::from(template));
        true
    }

    /// How many requests had no route because their service has too many.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_of_targets() {
        for (target, expected) in [
            ("/", Some("/")),
            ("/a/b?c=d/e", Some("/a/b")),
            ("/a#b?c", Some("/a")),
            ("/a?b#c", Some("/a")),
            ("/?", Some("/")),
            ("//double", Some("//double")),
            ("*", Some("*")),
            ("http://host/a?b", Some("/a")),
            ("HTTPS://host:8/a/", Some("/a/")),
            ("http://host", Some("/")),
            ("http://host?a", Some("/")),
            ("http://host?a=/b", Some("/")),
            ("host:443", None),
            ("", None),
            ("?a", None),
            ("no path://", None),
        ] {
            assert_eq!(path(target), expected, "{target}");
        }
    }

    #[test]
    fn ids_collapse_and_nothing_else_does() {
        for (path, expected) in [
            ("/", "/"),
            ("/users/17", "/users/{id}"),
            ("/users/17/", "/users/{id}/"),
            ("/17/42", "/{id}/{id}"),
            ("/users/-1", "/users/{id}"),
            ("/users/-", "/users/-"),
            ("/users/1.5", "/users/1.5"),
            ("/v1/users", "/v1/users"),
            ("/a/123e4567-e89b-12d3-a456-426614174000", "/a/{id}"),
            ("/a/123E4567-E89B-12D3-A456-426614174000/b", "/a/{id}/b"),
            ("/a/123e4567-e89b-12d3-a456-42661417400", "/a/123e4567-e89b-12d3-a456-42661417400"),
            ("/a/123e4567e89b-12d3-a456-426614174000-", "/a/123e4567e89b-12d3-a456-426614174000-"),
            ("/a/deadbeef", "/a/{id}"),
            ("/a/DeadBee", "/a/DeadBee"),
            ("/a/deadbeeg", "/a/deadbeeg"),
            ("/a/507f1f77bcf86cd799439011", "/a/{id}"),
            ("/report-2024", "/report-2024"),
            ("/a%2F17", "/a%2F17"),
            ("//17//", "//{id}//"),
            ("/users/17.json", "/users/17.json"),
            ("/\u{661}\u{662}", "/\u{661}\u{662}"),
            ("*", "*"),
        ] {
            assert_eq!(template(path).as_deref(), Some(expected), "{path}");
        }
        assert_eq!(template(&format!("/{}", "z".repeat(1023))).map(|route| route.len()), Some(1024));
        assert_eq!(template(&format!("/{}", "z".repeat(1024))), None);
    }

    #[test]
    fn a_service_with_too_many_routes_keeps_those_it_has() {
        let mut routes = Routes::default();
        assert!(!routes.takes("a", "/guessed", false));
        for nth in 0..MAX_ROUTES {
            assert!(routes.takes("a", &format!("/r{nth}"), true));
        }
        assert!(!routes.takes("a", "/one-more", true));
        assert_eq!(routes.refused(), 1);
        assert!(routes.takes("a", "/r7", true));
        assert!(routes.takes("a", "/r7", false), "known all the same");
        assert!(routes.takes("b", "/one-more", true));
        assert!(!routes.takes("a", "/guessed/{id}", false));
        assert_eq!(routes.refused(), 1);
    }

    proptest! {
        #[test]
        fn any_target_has_a_route_of_bounded_length(target in ".{0,200}") {
            if let Some(path) = path(&target)
                && let Some(template) = template(path)
            {
                prop_assert!(template.split('/').count() == path.split('/').count());
            }
        }
    }
}
