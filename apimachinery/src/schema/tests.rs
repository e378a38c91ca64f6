use super::*;

fn kind(group: &str, version: &str, kind: &str) -> TypeId {
    registry().kind(Gvk::new(group, version, kind)).unwrap()
}

#[test]
fn fields_carry_what_the_codecs_need() {
    let container = registry().named("io.k8s.api.core.v1.Container").unwrap();
    let ports = container.field("ports").unwrap();
    assert_eq!(ports.tag, 6);
    assert_eq!(
        (ports.list, ports.keys.as_slice()),
        (ListType::Map, ["containerPort", "protocol"].as_slice())
    );
    assert_eq!(
        (ports.patch.merge, ports.merge_key),
        (true, Some("containerPort"))
    );
    assert!(container.field("name").unwrap().required);
    assert!(container.field("resources").unwrap().always);
    assert!(container.field("livenessProbe").unwrap().pointer);
    assert_eq!(
        container.field("terminationMessagePath").unwrap().default,
        Some("/dev/termination-log".into())
    );
    let volumes = kind("", "v1", "Pod").field("spec").map(|spec| spec.shape.clone());
    let Some(Shape::Struct(spec)) = volumes else {
        panic!("{volumes:?}")
    };
    assert!(spec.field("volumes").unwrap().patch.retain_keys);
}

#[test]
fn inlined_structs_are_fields_in_json_and_messages_in_protobuf() {
    let volume = registry().named("io.k8s.api.core.v1.Volume").unwrap();
    assert!(volume.field("configMap").is_some());
    let node = &volume.message.by_tag(2).unwrap().node;
    let ProtoNode::Inline(source) = node else {
        panic!("{node:?}")
    };
    assert!(source.by_tag(19).is_some());
}

/// The codecs keep sets of fields in 128 bits and places in fixed arrays.
#[test]
fn no_struct_is_wider_than_the_codecs_allow() {
    assert!(registry().types().all(|ty| ty.fields.len() <= 128));
}

#[test]
fn names_are_unique_within_a_struct_and_tags_within_a_message() {
    fn tags(message: &Message) -> bool {
        let nested = message.fields.iter().all(|field| match &field.node {
            ProtoNode::Inline(inner) => tags(inner),
            ProtoNode::Leaf(_) => true,
        });
        nested && message.fields.is_sorted_by(|a, b| a.tag < b.tag)
    }
    for ty in registry().types() {
        let places: Vec<_> = ty.fields.iter().map(|field| ty.index_of(field.name)).collect();
        assert!(
            places.iter().enumerate().all(|(i, place)| *place == Some(i)),
            "{}",
            ty.name
        );
        assert!(tags(&ty.message), "{}", ty.name);
    }
}

#[test]
fn shared_kinds_are_found_in_every_group() {
    assert_eq!(kind("apps", "v1", "DeleteOptions").short, "DeleteOptions");
    assert_eq!(kind("", "v1", "Status").short, "Status");
    assert_eq!(registry().kind(Gvk::new("apps", "v1", "Pod")), None);
}

#[test]
fn every_resource_has_a_type_and_so_have_its_subresources() {
    for resource in resources() {
        assert!(registry().kind(resource.gvk()).is_some(), "{}", resource.gvk());
        assert!(
            registry().kind(resource.storage).is_some(),
            "{}",
            resource.storage
        );
        for sub in &resource.subresources {
            assert!(
                registry().kind(sub.gvk).is_some(),
                "{}/{}: {}",
                resource.resource,
                sub.name,
                sub.gvk
            );
        }
    }
}

#[test]
fn keys_are_upstreams() {
    let key = |group, version, name| resource(group, version, name).unwrap().key_prefix;
    assert_eq!(key("", "v1", "pods"), "pods");
    assert_eq!(key("", "v1", "nodes"), "minions");
    assert_eq!(key("", "v1", "services"), "services/specs");
    assert_eq!(key("networking.k8s.io", "v1", "ingresses"), "ingress");
    assert_eq!(key("authorization.k8s.io", "v1", "subjectaccessreviews"), "");
}

#[test]
fn unstable_versions_are_off_and_stored_as_upstream_stores_them() {
    let claims = resource("resource.k8s.io", "v1beta2", "resourceclaims").unwrap();
    assert!(!claims.served);
    assert_eq!(claims.storage.version, "v1");
    assert!(resource("apps", "v1", "deployments").unwrap().served);
    assert_eq!(
        resource("autoscaling", "v1", "horizontalpodautoscalers")
            .unwrap()
            .storage
            .version,
        "v2"
    );
    assert_eq!(
        resource("events.k8s.io", "v1", "events").unwrap().storage,
        Gvk::new("", "v1", "Event")
    );
}

#[test]
fn api_versions_parse_and_print() {
    assert_eq!(
        Gvk::parse("apps/v1", "Deployment"),
        Gvk::new("apps", "v1", "Deployment")
    );
    assert_eq!(Gvk::parse("v1", "Pod").api_version(), "v1");
    assert_eq!(
        Gvk::new("apps", "v1", "Deployment").to_string(),
        "apps/v1, Kind=Deployment"
    );
}
