use super::*;

fn canonical(text: &str) -> String {
    Quantity::canonicalize(text).unwrap().into_owned()
}

#[test]
fn texts_become_canonical_as_upstream_prints_them() {
    let cases = [
        ("0", "0"),
        ("0n", "0"),
        ("0Ki", "0"),
        ("0.0000", "0"),
        ("100m", "100m"),
        ("1000m", "1"),
        ("0.1", "100m"),
        ("1.5", "1500m"),
        (".5", "500m"),
        ("1024", "1024"),
        ("1000", "1k"),
        ("1024Ki", "1Mi"),
        ("1024Mi", "1Gi"),
        ("8Ki", "8Ki"),
        ("1.5Gi", "1536Mi"),
        ("0.5Gi", "512Mi"),
        ("1500Mi", "1500Mi"),
        ("100Ki", "100Ki"),
        ("1e3", "1e3"),
        ("1E3", "1E3"),
        ("12e6", "12e6"),
        ("100e2", "10e3"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("1n", "1n"),
        ("0.1n", "1n"),
        ("0.5m", "500u"),
        ("-1", "-1"),
        ("-1500m", "-1500m"),
        ("-1.5", "-1500m"),
        ("9Ei", "9223372036854775807"),
        ("7Ei", "7Ei"),
        ("4E", "4E"),
        ("1.500", "1.500"),
        ("005", "005"),
        ("0.5Ki", "512"),
        ("0.0001Ki", "102400u"),
        ("512", "512"),
        ("2.5Ki", "2560"),
        ("10k", "10k"),
        ("10000", "10k"),
    ];
    for (text, expected) in cases {
        assert_eq!(canonical(text), expected, "{text}");
    }
}

#[test]
fn malformed_texts_are_refused_with_upstreams_words() {
    for text in ["", " ", "1.1.M", "1+1.0M", "aoeu", "1 Mi", "1e3.5"] {
        assert_eq!(
            Quantity::parse(text).unwrap_err(),
            QuantityError::Format,
            "{text}"
        );
    }
    for text in ["0.1mi", "1i", "3001e", "1E+", "1mM"] {
        assert_eq!(
            Quantity::parse(text).unwrap_err(),
            QuantityError::Suffix,
            "{text}"
        );
    }
}

#[test]
fn values_round_away_from_zero() {
    let q = |text| Quantity::parse(text).unwrap();
    assert_eq!(q("100m").value(), 1);
    assert_eq!(q("1500m").milli_value(), 1500);
    assert_eq!(q("1Gi").value(), 1 << 30);
    assert_eq!(q("1u").milli_value(), 1);
    assert_eq!(q("1e100").value(), i64::MAX);
    assert_eq!(q("-1500m").value(), -2);
}

#[test]
fn order_is_by_value_not_by_text() {
    let q = |text| Quantity::parse(text).unwrap();
    assert_eq!(q("1"), q("1000m"));
    assert_eq!(q("1Ki"), q("1024"));
    assert!(q("1e300") > q("1"));
    assert!(q("-1e300") < q("1n"));
    assert!(q("999m") < q("1"));
}

#[test]
fn sums_keep_the_first_format_that_is_not_zero() {
    let mut sum = Quantity::ZERO;
    for text in ["1Gi", "512Mi", "100m"] {
        sum.add(&Quantity::parse(text).unwrap());
    }
    assert_eq!(sum.to_string(), "1610612736100m");
    sum.sub(&Quantity::parse("100m").unwrap());
    assert_eq!(sum.to_string(), "1536Mi");
}

#[test]
fn milli_rounding_is_upwards() {
    let mut q = Quantity::parse("1u").unwrap();
    q.round_up_to_milli();
    assert_eq!(q.to_string(), "1m");
}
