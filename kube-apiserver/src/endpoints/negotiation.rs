//! Media types: what the client sent, and the form in which it wants the answer.

use apimachinery::status::{self, StatusError};
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};

use super::query::Query;

pub const JSON: &str = "application/json";
pub const YAML: &str = "application/yaml";
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    Json,
    Yaml,
    Protobuf,
}

impl Media {
    pub fn content_type(self) -> &'static str {
        match self {
            Media::Json => JSON,
            Media::Yaml => YAML,
            Media::Protobuf => PROTOBUF,
        }
    }

    /// Of a body; an absent header means JSON.
    pub fn of_content_type(headers: &HeaderMap) -> Result<Media, StatusError> {
        let text = headers
            .get(CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        match text.split(';').next().unwrap_or_default().trim() {
            "" | JSON | "*/*" => Ok(Media::Json),
            YAML | "application/x-yaml" | "text/yaml" => Ok(Media::Yaml),
            PROTOBUF => Ok(Media::Protobuf),
            _ => Err(status::unsupported_media_type(&[JSON, YAML, PROTOBUF])),
        }
    }
}

/// What of the object is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Object,
    /// `as=Table`, with the meta.k8s.io version asked for.
    Table(&'static str),
    /// `as=PartialObjectMetadata` or its List.
    Metadata(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    pub media: Media,
    pub form: Form,
    pub pretty: bool,
}

impl Output {
    /// For errors on requests that have no sensible Accept.
    pub const JSON: Output = Output {
        media: Media::Json,
        form: Form::Object,
        pretty: false,
    };

    /// The first acceptable clause, by weight. `list` and `watch` decide which `as=` makes sense.
    pub fn negotiate(headers: &HeaderMap, query: &Query) -> Result<Output, StatusError> {
        let accept = headers
            .get(ACCEPT)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let pretty = wants_pretty(headers, query);
        if accept.is_empty() {
            return Ok(Output {
                pretty,
                ..Output::JSON
            });
        }
        let mut clauses: Vec<Clause<'_>> = accept.split(',').map(Clause::parse).collect();
        clauses.sort_by(|a, b| b.weight.total_cmp(&a.weight));
        let found = clauses.iter().find_map(Clause::output);
        found
            .map(|output| Output { pretty, ..output })
            .ok_or_else(|| status::not_acceptable(&[JSON, YAML, PROTOBUF]))
    }
}

struct Clause<'a> {
    media: &'a str,
    as_kind: &'a str,
    group: &'a str,
    version: &'a str,
    weight: f32,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Clause<'a> {
        let mut parts = text.split(';').map(str::trim);
        let mut clause = Clause {
            media: parts.next().unwrap_or_default(),
            as_kind: "",
            group: "",
            version: "",
            weight: 1.0,
        };
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            match key {
                "as" => clause.as_kind = value,
                "g" => clause.group = value,
                "v" => clause.version = value,
                "q" => clause.weight = value.parse().unwrap_or(0.0),
                _ => {}
            }
        }
        clause
    }

    fn output(&self) -> Option<Output> {
        let media = match self.media {
            JSON | "*/*" | "application/*" => Media::Json,
            YAML => Media::Yaml,
            PROTOBUF => Media::Protobuf,
            _ => return None,
        };
        let form = match self.as_kind {
            "" => Form::Object,
            "Table" => Form::Table(self.meta_version()?),
            "PartialObjectMetadata" | "PartialObjectMetadataList" => Form::Metadata(self.meta_version()?),
            _ => return None,
        };
        // Tables have no protobuf form worth its name: upstream refuses it too.
        (!(media == Media::Protobuf && matches!(form, Form::Table(_)))).then_some(Output {
            media,
            form,
            pretty: false,
        })
    }

    fn meta_version(&self) -> Option<&'static str> {
        match (self.group, self.version) {
            ("meta.k8s.io", "v1") => Some("meta.k8s.io/v1"),
            ("meta.k8s.io", "v1beta1") => Some("meta.k8s.io/v1beta1"),
            _ => None,
        }
    }
}

/// People look at answers with these; programs say what they want.
fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if query.has("pretty") {
        return query.flag("pretty");
    }
    let agent = headers
        .get(USER_AGENT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"]
        .iter()
        .any(|person| agent.starts_with(person))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiate(accept: &str) -> Option<(Media, Form)> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        Output::negotiate(&headers, &Query::parse(None))
            .ok()
            .map(|o| (o.media, o.form))
    }

    #[test]
    fn the_first_acceptable_clause_wins() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(
            negotiate(kubectl),
            Some((Media::Json, Form::Table("meta.k8s.io/v1")))
        );
        assert_eq!(
            negotiate("application/vnd.kubernetes.protobuf,application/json"),
            Some((Media::Protobuf, Form::Object))
        );
        assert_eq!(
            negotiate("application/cbor, application/yaml"),
            Some((Media::Yaml, Form::Object))
        );
        assert_eq!(
            negotiate("text/html, */*;q=0.8"),
            Some((Media::Json, Form::Object))
        );
        assert_eq!(
            negotiate("application/json;q=0.1,application/yaml"),
            Some((Media::Yaml, Form::Object))
        );
        assert_eq!(negotiate("image/png"), None);
    }

    #[test]
    fn bodies_without_a_type_are_json() {
        assert_eq!(Media::of_content_type(&HeaderMap::new()).ok(), Some(Media::Json));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "text/plain".parse().unwrap());
        assert_eq!(Media::of_content_type(&headers).unwrap_err().code, 415);
    }
}
