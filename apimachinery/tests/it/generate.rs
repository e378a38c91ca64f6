//! A seeded generator: numbers, broken bytes, and objects of any type of the schema.

use apimachinery::schema::{Field, Raw, SchemaAlternative, Shape, TypeId};
use apimachinery::value::{Object, Value};

/// SplitMix64: small, seeded, good enough to vary tests.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    pub fn text(&mut self) -> String {
        const ATOMS: [&str; 12] = [
            "a", "B", "7", "-", "é", "<", "&", "\"", "\\", "\n", "\u{2028}", "😀",
        ];
        (0..self.below(30)).map(|_| self.pick(&ATOMS)).collect()
    }

    /// A copy of `bytes` with a few of them changed, removed or doubled.
    pub fn mangle(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = bytes.to_vec();
        for _ in 0..=self.below(4) {
            if out.is_empty() {
                break;
            }
            let at = self.below(out.len());
            match self.below(4) {
                0 => out[at] = self.next() as u8,
                1 => drop(out.remove(at)),
                2 => out.truncate(at),
                _ => out.insert(at, out[at]),
            }
        }
        out
    }
}

/// A random object of `ty`, as a client might send it. Deeper structs are sparser.
pub fn object(rng: &mut Rng, ty: TypeId, depth: usize) -> Value {
    let mut object = Object::new();
    for field in &ty.fields {
        let sparse = 2 + depth * 2;
        if field.name != "kind" && field.name != "apiVersion" && rng.one_in(sparse) {
            object.insert(field.name, field_value(rng, field, depth));
        }
    }
    Value::Object(object)
}

fn field_value(rng: &mut Rng, field: &Field, depth: usize) -> Value {
    if rng.one_in(20) {
        Value::Null
    } else {
        value(rng, &field.shape, depth)
    }
}

fn value(rng: &mut Rng, shape: &Shape, depth: usize) -> Value {
    match shape {
        Shape::Bool => rng.one_in(2).into(),
        Shape::Int32 => i64::from(rng.next() as i32 >> rng.below(31)).into(),
        Shape::Int64 => (rng.next() as i64 >> rng.below(63)).into(),
        Shape::Double => (rng.below(1000) as f64 / 8.0).into(),
        Shape::String => rng.text().into(),
        Shape::Bytes => rng.pick(&["", "AA==", "AAE=", "AAEC"]).into(),
        Shape::Time => rng
            .pick(&[
                "2024-02-29T12:00:00Z",
                "1969-07-20T20:17:40+01:30",
                "0001-01-01T00:00:00Z",
            ])
            .into(),
        Shape::MicroTime => rng
            .pick(&["2024-02-29T12:00:00.123456Z", "1970-01-01T00:00:00.000000Z"])
            .into(),
        Shape::Quantity => rng
            .pick(&[
                "0",
                "1",
                "100m",
                "1.5Gi",
                "1e3",
                "0.1n",
                "-3k",
                "12345678901234567890",
            ])
            .into(),
        Shape::IntOrString if rng.one_in(2) => (rng.below(70000) as i64).into(),
        Shape::IntOrString => rng.pick(&["http", "25%", ""]).into(),
        Shape::Raw(kind) => raw(rng, *kind),
        Shape::Struct(ty) => object(rng, *ty, depth + 1),
        Shape::List(item) | Shape::Items(item) => {
            Value::List((0..rng.below(3)).map(|_| value(rng, item, depth + 1)).collect())
        }
        Shape::Map(item) => {
            let keys = (0..rng.below(3)).map(|_| rng.text()).collect::<Vec<_>>();
            Value::Object(
                keys.into_iter()
                    .map(|key| (key, value(rng, item, depth + 1)))
                    .collect(),
            )
        }
        Shape::SchemaOr(_, SchemaAlternative::Bool) if rng.one_in(2) => rng.one_in(2).into(),
        Shape::SchemaOr(_, SchemaAlternative::Strings) if rng.one_in(2) => vec![rng.text()].into(),
        Shape::SchemaOr(ty, SchemaAlternative::Array) if rng.one_in(2) => {
            Value::List(vec![object(rng, *ty, depth + 1)])
        }
        Shape::SchemaOr(ty, _) => object(rng, *ty, depth + 1),
    }
}

fn raw(rng: &mut Rng, kind: Raw) -> Value {
    match kind {
        Raw::Extension | Raw::FieldsV1 => Value::Raw(rng.pick(&[r#"{"a":["<x>"],"b":1}"#, "{}"]).into()),
        Raw::Json => Value::Raw(rng.pick(&["1", "\"x\"", "[1,{}]", "true"]).into()),
    }
}
