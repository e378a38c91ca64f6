//! OpenAPI v2 as protobuf, `openapi.v2.Document` of google/gnostic-models: the form in which every kubectl before 1.27,
//! helm and other Go clients read the document.
//!
//! A table says for each message which JSON field goes under which tag and in which form; the encoder walks the JSON document
//! beside it. What the table does not know is reported, never dropped in silence.

use serde_json::{Map, Value};

use crate::storage::header::put_varint;

struct Message {
    fields: &'static [(&'static str, u32, Form)],
    /// Where `x-...` fields go.
    extensions: Option<u32>,
}

enum Form {
    Text,
    /// A list of strings; JSON may have one alone.
    Texts,
    Flag,
    Integer,
    Number,
    /// Free JSON, carried as YAML text.
    Any,
    One(&'static Message),
    /// Each item of a list.
    Many(&'static Form),
    /// Each pair of an object, as a message of name and value.
    Entries(&'static Form),
    /// A message that has this one tag and the form below it: what protobuf makes of alternatives, lists and maps.
    Within(u32, &'static Form),
    /// `additionalProperties`
    SchemaOrFlag,
    /// A parameter: told apart by `in`.
    Parameter,
}

use Form::{Any, Entries, Flag, Integer, Many, Number, One, Parameter, SchemaOrFlag, Text, Texts, Within};

/// `google.protobuf.Any` stands under 1 and stays empty.
const ANY_YAML: u32 = 2;
const NAME: u32 = 1;
const VALUE: u32 = 2;

static DOCUMENT: Message = Message {
    fields: &[
        ("swagger", 1, Text),
        ("info", 2, One(&INFO)),
        ("paths", 8, Within(2, &Entries(&One(&PATH_ITEM)))),
        ("definitions", 9, Within(1, &Entries(&One(&SCHEMA)))),
        ("security", 12, Many(&Within(1, &Entries(&Within(1, &Texts))))),
        (
            "securityDefinitions",
            13,
            Within(1, &Entries(&Within(2, &One(&API_KEY)))),
        ),
    ],
    extensions: Some(16),
};

static INFO: Message = Message {
    fields: &[("title", 1, Text), ("version", 2, Text), ("description", 3, Text)],
    extensions: Some(7),
};

static API_KEY: Message = Message {
    fields: &[
        ("type", 1, Text),
        ("name", 2, Text),
        ("in", 3, Text),
        ("description", 4, Text),
    ],
    extensions: Some(5),
};

static PATH_ITEM: Message = Message {
    fields: &[
        ("get", 2, One(&OPERATION)),
        ("put", 3, One(&OPERATION)),
        ("post", 4, One(&OPERATION)),
        ("delete", 5, One(&OPERATION)),
        ("options", 6, One(&OPERATION)),
        ("head", 7, One(&OPERATION)),
        ("patch", 8, One(&OPERATION)),
        ("parameters", 9, Many(&Parameter)),
    ],
    extensions: Some(10),
};

static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, Texts),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("produces", 6, Texts),
        ("consumes", 7, Texts),
        ("parameters", 8, Many(&Parameter)),
        ("responses", 9, Within(1, &Entries(&Within(1, &One(&RESPONSE))))),
        ("schemes", 10, Texts),
        ("deprecated", 11, Flag),
    ],
    extensions: Some(13),
};

static RESPONSE: Message = Message {
    fields: &[("description", 1, Text), ("schema", 2, Within(1, &One(&SCHEMA)))],
    extensions: Some(5),
};

static BODY_PARAMETER: Message = Message {
    fields: &[
        ("description", 1, Text),
        ("name", 2, Text),
        ("in", 3, Text),
        ("required", 4, Flag),
        ("schema", 5, One(&SCHEMA)),
    ],
    extensions: Some(6),
};

static QUERY_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Flag),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 6, Text),
        ("format", 7, Text),
        ("uniqueItems", 20, Flag),
    ],
    extensions: Some(23),
};

static PATH_PARAMETER: Message = Message {
    fields: &[
        ("required", 1, Flag),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 5, Text),
        ("format", 6, Text),
        ("uniqueItems", 19, Flag),
    ],
    extensions: Some(22),
};

static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("multipleOf", 6, Number),
        ("maximum", 7, Number),
        ("exclusiveMaximum", 8, Flag),
        ("minimum", 9, Number),
        ("exclusiveMinimum", 10, Flag),
        ("maxLength", 11, Integer),
        ("minLength", 12, Integer),
        ("pattern", 13, Text),
        ("maxItems", 14, Integer),
        ("minItems", 15, Integer),
        ("uniqueItems", 16, Flag),
        ("maxProperties", 17, Integer),
        ("minProperties", 18, Integer),
        ("required", 19, Texts),
        ("enum", 20, Many(&Any)),
        ("additionalProperties", 21, SchemaOrFlag),
        ("type", 22, Within(1, &Texts)),
        ("items", 23, Within(1, &One(&SCHEMA))),
        ("allOf", 24, Many(&One(&SCHEMA))),
        ("properties", 25, Within(1, &Entries(&One(&SCHEMA)))),
        ("discriminator", 26, Text),
        ("readOnly", 27, Flag),
        ("example", 30, Any),
    ],
    extensions: Some(31),
};

/// Takes the document piece by piece, so that it never stands in memory as a tree.
#[derive(Default)]
pub struct Encoder {
    out: Vec<u8>,
    /// The entries of the message that is being filled.
    entries: Vec<u8>,
    /// JSON fields for which the table has no place.
    unknown: Vec<String>,
}

impl Encoder {
    /// Fields of the document that are complete.
    pub fn fields(&mut self, fields: &Value) {
        let bytes = self.message(fields, &DOCUMENT);
        self.out.extend_from_slice(&bytes);
    }

    /// One path; all paths stand together.
    pub fn path(&mut self, name: &str, item: &Value) {
        self.piece(2, name, &One(&PATH_ITEM), item);
    }

    pub fn end_paths(&mut self) {
        self.end(8);
    }

    pub fn definition(&mut self, name: &str, schema: &Value) {
        self.piece(1, name, &One(&SCHEMA), schema);
    }

    pub fn end_definitions(&mut self) {
        self.end(9);
    }

    /// The document's bytes, and what of it is not in them.
    pub fn finish(self) -> (Vec<u8>, Vec<String>) {
        (self.out, self.unknown)
    }

    fn piece(&mut self, tag: u32, name: &str, form: &Form, value: &Value) {
        let mut entries = std::mem::take(&mut self.entries);
        self.entry(tag, name, form, value, &mut entries);
        self.entries = entries;
    }

    fn end(&mut self, tag: u32) {
        delimited(tag, &self.entries, &mut self.out);
        self.entries.clear();
    }

    fn message(&mut self, value: &Value, message: &Message) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, value) in value.as_object().into_iter().flatten() {
            match message.fields.iter().find(|(name, ..)| name == key) {
                Some((_, tag, form)) => self.put(*tag, form, value, &mut out),
                None => self.extension(key, value, message, &mut out),
            }
        }
        out
    }

    fn extension(&mut self, key: &str, value: &Value, message: &Message, out: &mut Vec<u8>) {
        match message.extensions.filter(|_| key.starts_with("x-")) {
            Some(tag) => self.entry(tag, key, &Any, value, out),
            None => self.unknown.push(key.to_owned()),
        }
    }

    fn entry(&mut self, tag: u32, name: &str, form: &Form, value: &Value, out: &mut Vec<u8>) {
        let mut entry = Vec::new();
        delimited(NAME, name.as_bytes(), &mut entry);
        self.put(VALUE, form, value, &mut entry);
        delimited(tag, &entry, out);
    }

    fn put(&mut self, tag: u32, form: &Form, value: &Value, out: &mut Vec<u8>) {
        match (form, value) {
            (Text | Texts, Value::String(text)) => delimited(tag, text.as_bytes(), out),
            (Texts, Value::Array(items)) => {
                items
                    .iter()
                    .filter_map(Value::as_str)
                    .for_each(|text| delimited(tag, text.as_bytes(), out));
            }
            (Flag, Value::Bool(flag)) => number(tag, u64::from(*flag), out),
            (Integer, Value::Number(n)) => number(tag, n.as_i64().unwrap_or_default().cast_unsigned(), out),
            (Number, Value::Number(n)) => double(tag, n.as_f64().unwrap_or_default(), out),
            (Any, any) => {
                let mut yaml = Vec::new();
                // JSON is YAML too.
                delimited(ANY_YAML, format!("{any}\n").as_bytes(), &mut yaml);
                delimited(tag, &yaml, out);
            }
            (One(message), Value::Object(_)) => {
                let inner = self.message(value, message);
                delimited(tag, &inner, out);
            }
            (Many(form), Value::Array(items)) => items.iter().for_each(|item| self.put(tag, form, item, out)),
            (Entries(form), Value::Object(map)) => self.entries(tag, form, map, out),
            (Within(only, form), value) => {
                let mut inner = Vec::new();
                self.put(*only, form, value, &mut inner);
                delimited(tag, &inner, out);
            }
            (SchemaOrFlag, Value::Bool(_)) => self.put(tag, &FLAG_ALTERNATIVE, value, out),
            (SchemaOrFlag, _) => self.put(tag, &SCHEMA_ALTERNATIVE, value, out),
            (Parameter, _) => self.put(tag, parameter(value), value, out),
            (_, other) => self.unknown.push(other.to_string()),
        }
    }

    fn entries(&mut self, tag: u32, form: &Form, map: &Map<String, Value>, out: &mut Vec<u8>) {
        for (name, value) in map {
            self.entry(tag, name, form, value, out);
        }
    }
}

/// Parameter -> body or other -> by its place.
fn parameter(value: &Value) -> &'static Form {
    static BODY: Form = Within(1, &Within(1, &One(&BODY_PARAMETER)));
    static QUERY: Form = Within(1, &Within(2, &Within(3, &One(&QUERY_PARAMETER))));
    static PATH: Form = Within(1, &Within(2, &Within(4, &One(&PATH_PARAMETER))));
    match value["in"].as_str() {
        Some("body") => &BODY,
        Some("path") => &PATH,
        _ => &QUERY,
    }
}

/// A schema, or whether any is allowed.
static SCHEMA_ALTERNATIVE: Form = Within(1, &One(&SCHEMA));
static FLAG_ALTERNATIVE: Form = Within(2, &Flag);

fn delimited(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(out, u64::from(tag) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn number(tag: u32, value: u64, out: &mut Vec<u8>) {
    put_varint(out, u64::from(tag) << 3);
    put_varint(out, value);
}

fn double(tag: u32, value: f64, out: &mut Vec<u8>) {
    put_varint(out, u64::from(tag) << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn encode(document: &Value) -> (Vec<u8>, Vec<String>) {
        let mut encoder = Encoder::default();
        encoder.fields(document);
        encoder.finish()
    }

    fn hex(document: &Value) -> String {
        let (bytes, unknown) = encode(document);
        assert_eq!(unknown, Vec::<String>::new());
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The bytes are what `protoc --encode=openapi.v2.Document` makes of the same document as text.
    #[test]
    fn alternatives_lists_and_maps_are_messages() {
        let reference = json!({"definitions": {"P": {"properties": {"c": {"items": {"$ref": "#"}}}}}});
        assert_eq!(
            hex(&reference),
            "4a190a170a01501212ca010f0a0d0a01631208ba01050a030a0123"
        );
        let typed = json!({"definitions": {"P": {"type": "object"}}});
        assert_eq!(hex(&typed), "4a120a100a0150120bb201080a066f626a656374");
        let operation = json!({"paths": {"/a": {"get": {"parameters": [{"name": "d"}]}}}});
        assert_eq!(hex(&operation), "421512130a022f61120d120b42090a0712051a03220164");
        assert_eq!(hex(&json!({"security": [{"B": []}]})), "62070a050a01421200");
        let key = json!({"securityDefinitions": {"B": {"in": "header"}}});
        assert_eq!(hex(&key), "6a110a0f0a0142120a12081a06686561646572");
    }

    #[test]
    fn a_document_in_pieces_is_the_same() {
        let (item, schema) = (json!({"get": {"tags": ["t"]}}), json!({"type": "object"}));
        let mut pieces = Encoder::default();
        for name in ["/a", "/b"] {
            pieces.path(name, &item);
        }
        pieces.end_paths();
        pieces.definition("P", &schema);
        pieces.end_definitions();
        let whole = json!({"paths": {"/a": item, "/b": item}});
        let mut expected = encode(&whole).0;
        expected.extend(encode(&json!({"definitions": {"P": schema}})).0);
        assert_eq!(pieces.finish(), (expected, Vec::new()));
    }

    #[test]
    fn extensions_are_yaml_and_unknown_fields_are_told() {
        let (bytes, unknown) = encode(&json!({"x-a": ["b"], "novel": 1}));
        assert_eq!(unknown, ["novel"]);
        assert_eq!(bytes, b"\x82\x01\x0f\x0a\x03x-a\x12\x08\x12\x06[\"b\"]\n");
    }

    #[test]
    fn parameters_are_told_apart_by_their_place() {
        let put = |parameter: Value| {
            let mut out = Vec::new();
            Encoder::default().put(8, &Parameter, &parameter, &mut out);
            out
        };
        assert_eq!(
            put(json!({"in": "body", "required": true})),
            b"\x42\x0c\x0a\x0a\x0a\x08\x1a\x04body\x20\x01"
        );
        assert_eq!(
            put(json!({"in": "query", "name": "d"})),
            b"\x42\x10\x0a\x0e\x12\x0c\x1a\x0a\x12\x05query\x22\x01d"
        );
        assert_eq!(
            put(json!({"in": "path"})),
            b"\x42\x0c\x0a\x0a\x12\x08\x22\x06\x12\x04path"
        );
    }

    #[test]
    fn false_and_numbers_are_kept() {
        let schema = |value: Value| {
            let mut encoder = Encoder::default();
            (encoder.message(&value, &SCHEMA), encoder.unknown.len())
        };
        assert_eq!(
            schema(json!({"additionalProperties": false})),
            (b"\xaa\x01\x02\x10\x00".to_vec(), 0)
        );
        assert_eq!(schema(json!({"maxLength": 300})), (b"\x58\xac\x02".to_vec(), 0));
        assert_eq!(
            schema(json!({"minimum": 0.5})),
            (b"\x49\0\0\0\0\0\0\xe0\x3f".to_vec(), 0)
        );
    }
}
