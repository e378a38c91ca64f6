use super::*;

#[test]
fn a_node_is_thirty_two_bytes() {
    assert_eq!(std::mem::size_of::<Value>(), 32);
    assert_eq!(std::mem::size_of::<Str>(), 24);
}

#[test]
fn strings_compare_by_text_wherever_they_live() {
    let long = "a string that is longer than twenty-two bytes";
    assert_eq!(Str::from("short"), Str::from_static("short"));
    assert_eq!(Str::from(long), Str::from_static(long));
    assert_eq!(Str::from("äöü-22-bytes-exactly!!").len(), 25);
    assert_eq!(
        Str::from("äöü-22-bytes-exactly!!").as_str(),
        "äöü-22-bytes-exactly!!"
    );
}

#[test]
fn paths_read_write_and_remove() {
    let mut pod = Value::Null;
    pod.set_at("spec.nodeName", "n1");
    pod.set_at("spec.hostNetwork", true);
    pod.list_mut_at("spec.containers")
        .push(Value::from([("name", "c".into())]));
    assert_eq!(pod.str_at("spec.nodeName"), "n1");
    assert!(pod.bool_at("spec.hostNetwork"));
    assert_eq!(pod.list_at("spec.containers")[0].str_at("name"), "c");
    assert_eq!(pod.str_at("spec.absent.deeper"), "");
    assert_eq!(pod.remove_at("spec.nodeName"), Some("n1".into()));
    assert_eq!(pod.at("spec.nodeName"), None);
}

#[test]
fn a_huge_object_becomes_sorted_and_keeps_every_key() {
    let mut object = Object::new();
    for i in (0..1000).rev() {
        object.insert(format!("k{i}"), Value::Int(i));
    }
    assert_eq!(object.len(), 1000);
    assert!((0..1000).all(|i| object.get(&format!("k{i}")) == Some(&Value::Int(i))));
    assert_eq!(object.insert("k7", Value::Null), Some(Value::Int(7)));
    assert_eq!(object.remove("k999"), Some(Value::Int(999)));
    assert_eq!(object.len(), 999);
}

#[test]
fn of_equal_keys_the_last_counts() {
    let pairs = [("b", 1), ("a", 2), ("b", 3)].map(|(k, v)| (Str::from(k), Value::Int(v)));
    let map = Object::from_pairs(pairs.to_vec());
    assert_eq!(map.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(map.get("b"), Some(&Value::Int(3)));
}
