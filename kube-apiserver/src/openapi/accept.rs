//! Which form of a document a client wants, and whether it has it already.

use http::HeaderMap;
use http::header::{ACCEPT, IF_NONE_MATCH};

/// The offer that the client prefers: its clauses by weight, the offers in their order. Offers are subtypes of
/// `application`; parameters other than the weight decide nothing here.
pub fn choose<T: Copy>(headers: &HeaderMap, offers: &[(&str, T)]) -> Option<T> {
    let accept = headers
        .get(ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if accept.trim().is_empty() {
        return offers.first().map(|(_, offer)| *offer);
    }
    let mut clauses: Vec<(f32, &str)> = accept.split(',').map(clause).collect();
    clauses.sort_by(|a, b| b.0.total_cmp(&a.0));
    clauses.iter().find_map(|(_, media)| {
        let (family, subtype) = media.split_once('/')?;
        let fits = |offer: &&(&str, T)| subtype == "*" || subtype == offer.0;
        matches!(family, "application" | "*")
            .then(|| offers.iter().find(fits))?
            .map(|(_, offer)| *offer)
    })
}

fn clause(text: &str) -> (f32, &str) {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default();
    let weight = parts
        .find_map(|p| p.strip_prefix("q="))
        .map_or(1.0, |q| q.parse().unwrap_or(0.0));
    (weight, media)
}

/// Is `hash` among the entity tags that the client has?
pub fn has(headers: &HeaderMap, hash: &str) -> bool {
    let tags = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|v| v.to_str().ok());
    tags.flat_map(|v| v.split(',')).any(|tag| {
        let tag = tag.trim();
        tag == "*" || tag.trim_start_matches("W/").trim_matches('"') == hash
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accept: &str) -> Option<u8> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("a header"));
        choose(&headers, &[("json", 1), ("pb+protobuf", 2)])
    }

    #[test]
    fn the_heaviest_clause_that_is_offered_wins() {
        assert_eq!(choose(&HeaderMap::new(), &[("json", 1)]), Some(1));
        assert_eq!(chosen("application/pb+protobuf"), Some(2));
        assert_eq!(chosen("application/pb+protobuf;q=0.5, application/json"), Some(1));
        assert_eq!(chosen("text/html, */*;q=0.1"), Some(1));
        assert_eq!(chosen("application/yaml, text/*"), None);
    }

    #[test]
    fn entity_tags_are_compared_weakly() {
        let has = |tags: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, tags.parse().expect("a header"));
            super::has(&headers, "AB")
        };
        assert!(has("\"AB\"") && has("W/\"AB\"") && has("\"X\", \"AB\"") && has("*"));
        assert!(!has("\"A\""));
    }
}
