use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn the_string_form_matches_as_upstream() {
    let web = labels(&[("app", "web"), ("tier", "front"), ("n", "5")]);
    let cases = [
        ("", true),
        ("app=web", true),
        ("app==web", true),
        ("app!=web", false),
        ("app=web,tier=front", true),
        ("app in (web, db)", true),
        ("app notin (web,db)", false),
        ("missing notin (a)", true),
        ("missing!=a", true),
        ("app", true),
        ("!app", false),
        ("!missing", true),
        ("n>4,n<6", true),
        ("n>5", false),
        ("in in (in)", false),
        (" app = web , ! missing ", true),
        ("app in ()", false),
        ("app=", false),
    ];
    for (text, expected) in cases {
        assert_eq!(
            LabelSelector::parse(text).unwrap().matches(&web),
            expected,
            "{text}"
        );
    }
}

#[test]
fn a_selector_prints_what_parses_back() {
    for (text, printed) in [
        ("b=2,a=1", "a=1,b=2"),
        ("x in (c,a),!y,z", "x in (a,c),!y,z"),
        ("k!=v", "k!=v"),
        ("k==v", "k==v"),
        ("k>1", "k>1"),
    ] {
        let selector = LabelSelector::parse(text).unwrap();
        assert_eq!(selector.to_string(), printed);
        assert_eq!(LabelSelector::parse(printed).unwrap(), selector);
    }
}

#[test]
fn malformed_selectors_get_upstreams_words() {
    let cases = [
        ("a=b,", "found '', expected: identifier after ','"),
        (",a=b", "found ',', expected: !, identifier, or 'end of string'"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        (
            "a b",
            "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
        ),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        (
            "a>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(
            LabelSelector::parse(text).unwrap_err().to_string(),
            expected,
            "{text}"
        );
    }
    assert!(
        LabelSelector::parse("a/b/c=d")
            .unwrap_err()
            .to_string()
            .starts_with("unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a valid label key")
    );
}

#[test]
fn the_object_form_knows_nothing_from_everything() {
    let web = labels(&[("app", "web")]);
    assert!(!LabelSelector::from_object(None).unwrap().matches(&web));
    assert!(
        LabelSelector::from_object(Some(&Value::Object(Object::new())))
            .unwrap()
            .matches(&web)
    );
    let selector = crate::json::decode_untyped(
        br#"{"matchLabels":{"app":"web"},"matchExpressions":[{"key":"env","operator":"NotIn","values":["prod"]}]}"#,
    )
    .unwrap();
    let selector = LabelSelector::from_object(Some(&selector)).unwrap();
    assert!(selector.matches(&web));
    assert!(!selector.matches(&labels(&[("app", "web"), ("env", "prod")])));
    let wrong =
        crate::json::decode_untyped(br#"{"matchExpressions":[{"key":"env","operator":"Near"}]}"#).unwrap();
    assert_eq!(
        LabelSelector::from_object(Some(&wrong)).unwrap_err().to_string(),
        "\"Near\" is not a valid label selector operator"
    );
}
