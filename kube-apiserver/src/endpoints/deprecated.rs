//! Resources whose every answer warns, as upstream's: those whose version is on its way out and still served by default.

use http::{HeaderMap, HeaderValue};

use apimachinery::schema::Resource;
use http::header::WARNING;

/// Group, version, resource, and the header's value.
const DEPRECATED: [(&str, &str, &str, &str); 2] = [
    (
        "",
        "v1",
        "componentstatuses",
        "299 - \"v1 ComponentStatus is deprecated in v1.19+\"",
    ),
    (
        "",
        "v1",
        "endpoints",
        "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\"",
    ),
];

pub fn warn(resource: &Resource, headers: &mut HeaderMap) {
    let own = (resource.group, resource.version, resource.resource);
    let found = DEPRECATED
        .iter()
        .find(|(group, version, name, _)| own == (*group, *version, *name));
    if let Some((.., text)) = found {
        headers.append(WARNING, HeaderValue::from_static(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::schema;

    #[test]
    fn endpoints_warn_and_slices_do_not() {
        let warnings = |group: &str, name: &str| {
            let mut headers = HeaderMap::new();
            let is = |r: &&Resource| r.group == group && r.version == "v1" && r.resource == name;
            warn(
                schema::resources().iter().find(is).expect("a resource"),
                &mut headers,
            );
            headers.get_all(WARNING).iter().count()
        };
        assert_eq!(warnings("", "endpoints"), 1);
        assert_eq!(warnings("discovery.k8s.io", "endpointslices"), 0);
    }
}
