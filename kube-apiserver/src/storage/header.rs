//! What can be read off a stored object's bytes in one pass, without decoding its body.
//!
//! Every kind has ObjectMeta as field 1. Selector fields are reached by their tags (`FieldPath`), resolved from the schema once.

use apimachinery::value::Value;

use super::object::{Labels, Selectable};

/// Tags from the object down to a scalar field, e.g. spec.nodeName of a Pod = [2, 10], and its dotted JSON path.
pub struct FieldPath {
    pub tags: Vec<u32>,
    pub json: &'static str,
    /// Varints of this field are shown as `true`/`false`.
    pub is_bool: bool,
}

#[derive(Default)]
pub struct Header {
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    pub labels: Labels,
    pub fields: Box<[Box<str>]>,
    pub deleting: bool,
}

const METADATA: u32 = 1;

/// ObjectMeta's tags.
mod meta {
    pub const NAME: u32 = 1;
    pub const NAMESPACE: u32 = 3;
    pub const UID: u32 = 5;
    pub const RESOURCE_VERSION: u32 = 6;
    pub const DELETION_TIMESTAMP: u32 = 9;
    pub const LABELS: u32 = 11;
}

pub fn scan(raw: &[u8], selectable: &[Selectable]) -> Result<Header, String> {
    let mut header = Header::default();
    for field in Fields(raw) {
        let field = field?;
        if field.tag == METADATA {
            scan_meta(field.bytes()?, &mut header)?;
        }
    }
    header.fields = selectable.iter().map(|s| selected(raw, s)).collect();
    Ok(header)
}

fn scan_meta(raw: &[u8], header: &mut Header) -> Result<(), String> {
    let mut labels = Vec::new();
    for field in Fields(raw) {
        let field = field?;
        match field.tag {
            meta::NAME => header.name = field.text()?,
            meta::NAMESPACE => header.namespace = field.text()?,
            meta::UID => header.uid = field.text()?,
            meta::DELETION_TIMESTAMP => header.deleting = true,
            meta::LABELS => labels.push(entry(field.bytes()?)?),
            _ => {}
        }
    }
    header.labels = labels.into();
    Ok(())
}

fn entry(raw: &[u8]) -> Result<(Box<str>, Box<str>), String> {
    let (mut key, mut value): (Box<str>, Box<str>) = Default::default();
    for field in Fields(raw) {
        let field = field?;
        match field.tag {
            1 => key = field.text()?,
            2 => value = field.text()?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn selected(raw: &[u8], selectable: &Selectable) -> Box<str> {
    let found = selectable
        .paths
        .iter()
        .filter_map(|path| scalar(raw, path))
        .find(|text| !text.is_empty());
    found.unwrap_or_else(|| selectable.absent.into())
}

/// The last occurrence wins, as protobuf says.
fn scalar(raw: &[u8], path: &FieldPath) -> Option<Box<str>> {
    let (last, parents) = path.tags.split_last()?;
    let mut message = raw;
    for tag in parents {
        message = Fields(message)
            .flatten()
            .filter(|f| f.tag == *tag)
            .last()?
            .bytes()
            .ok()?;
    }
    let field = Fields(message).flatten().filter(|f| f.tag == *last).last()?;
    match field.data {
        Data::Bytes(bytes) => std::str::from_utf8(bytes).ok().map(Into::into),
        Data::Varint(n) if path.is_bool => Some(if n != 0 { "true" } else { "false" }.into()),
        Data::Varint(n) => Some((n as i64).to_string().into()),
        Data::Fixed => None,
    }
}

/// A copy of `raw` whose metadata carries `revision` as resourceVersion, at the place where Go would write it.
/// Revision 0 is that of an object which is not stored: it shows none.
pub fn with_resource_version(raw: &[u8], revision: i64) -> Result<Vec<u8>, String> {
    let (start, end) = metadata_span(raw)?;
    let text = if revision == 0 {
        String::new()
    } else {
        revision.to_string()
    };
    let old = Fields(&raw[start..end]);
    let mut meta = Vec::with_capacity(end - start + text.len() + 2);
    let mut written = false;
    for field in old {
        let field = field?;
        if !written && field.tag >= meta::RESOURCE_VERSION {
            put_text(&mut meta, meta::RESOURCE_VERSION, &text);
            written = true;
        }
        if field.tag != meta::RESOURCE_VERSION {
            meta.extend_from_slice(field.whole);
        }
    }
    if !written {
        put_text(&mut meta, meta::RESOURCE_VERSION, &text);
    }
    let mut out = Vec::with_capacity(raw.len() + text.len() + 4);
    out.push((METADATA << 3 | 2) as u8);
    put_varint(&mut out, meta.len() as u64);
    out.extend_from_slice(&meta);
    out.extend_from_slice(&raw[end..]);
    Ok(out)
}

/// Where the ObjectMeta message lies. Go writes it first; anything else is not an API object.
fn metadata_span(raw: &[u8]) -> Result<(usize, usize), String> {
    let first = Fields(raw).next().ok_or("empty object")??;
    if first.tag != METADATA {
        return Err("object does not begin with its metadata".to_owned());
    }
    let bytes = first.bytes()?;
    Ok((first.whole.len() - bytes.len(), first.whole.len()))
}

pub fn put_text(out: &mut Vec<u8>, tag: u32, text: &str) {
    put_varint(out, u64::from(tag << 3 | 2));
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

pub fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// The same header from a decoded object (kinds stored as JSON).
pub fn of_value(value: &Value, selectable: &[Selectable]) -> Header {
    Header {
        namespace: value.str_at("metadata.namespace").into(),
        name: value.str_at("metadata.name").into(),
        uid: value.str_at("metadata.uid").into(),
        labels: labels_of(value),
        fields: fields_of(value, selectable),
        deleting: value
            .at("metadata.deletionTimestamp")
            .is_some_and(|t| !t.is_null()),
    }
}

pub fn labels_of(value: &Value) -> Labels {
    let labels = value.at("metadata.labels").and_then(Value::as_object);
    labels
        .map(|l| {
            l.iter()
                .map(|(k, v)| (k.into(), v.as_str().unwrap_or_default().into()))
                .collect()
        })
        .unwrap_or_default()
}

pub fn fields_of(value: &Value, selectable: &[Selectable]) -> Box<[Box<str>]> {
    let text = |path: &FieldPath| match value.at(path.json) {
        Some(Value::Str(s)) if !s.is_empty() => Some(Box::from(s.as_str())),
        Some(Value::Bool(b)) => Some(b.to_string().into()),
        Some(Value::Int(i)) => Some(i.to_string().into()),
        _ => None,
    };
    selectable
        .iter()
        .map(|s| s.paths.iter().find_map(text).unwrap_or_else(|| s.absent.into()))
        .collect()
}

/// The fields of a message, each with the bytes it takes.
pub struct Fields<'a>(pub &'a [u8]);

pub struct Field<'a> {
    pub tag: u32,
    pub data: Data<'a>,
    pub whole: &'a [u8],
}

pub enum Data<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Field<'a> {
    pub fn bytes(&self) -> Result<&'a [u8], String> {
        match self.data {
            Data::Bytes(bytes) => Ok(bytes),
            _ => Err(format!("field {} has the wrong wire type", self.tag)),
        }
    }

    fn text(&self) -> Result<Box<str>, String> {
        std::str::from_utf8(self.bytes()?)
            .map(Into::into)
            .map_err(|e| format!("field {}: {e}", self.tag))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = take_field(&mut self.0);
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| "malformed protobuf".to_owned()))
    }
}

fn take_field<'a>(rest: &mut &'a [u8]) -> Option<Field<'a>> {
    let start = *rest;
    let key = take_varint(rest)?;
    let tag = u32::try_from(key >> 3).ok().filter(|t| *t > 0)?;
    let data = match key & 7 {
        0 => Data::Varint(take_varint(rest)?),
        1 => take_slice(rest, 8).map(|_| Data::Fixed)?,
        2 => {
            let len = usize::try_from(take_varint(rest)?).ok()?;
            Data::Bytes(take_slice(rest, len)?)
        }
        5 => take_slice(rest, 4).map(|_| Data::Fixed)?,
        _ => return None,
    };
    Some(Field {
        tag,
        data,
        whole: &start[..start.len() - rest.len()],
    })
}

fn take_slice<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(head)
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        n |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(fields: &[(u32, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (tag, bytes) in fields {
            put_varint(&mut out, u64::from(tag << 3 | 2));
            put_varint(&mut out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        out
    }

    fn pod() -> Vec<u8> {
        let label = message(&[(1, b"app"), (2, b"web")]);
        let meta = message(&[(1, b"a"), (3, b"default"), (5, b"uid-1"), (11, &label)]);
        let spec = message(&[(10, b"node-1")]);
        message(&[(1, &meta), (2, &spec)])
    }

    fn node_name() -> Selectable {
        Selectable {
            label: "spec.nodeName",
            paths: vec![FieldPath {
                tags: vec![2, 10],
                json: "spec.nodeName",
                is_bool: false,
            }],
            absent: "",
        }
    }

    #[test]
    fn header_is_read_without_decoding() {
        let header = scan(&pod(), &[node_name()]).unwrap();
        assert_eq!(
            (&*header.namespace, &*header.name, &*header.uid),
            ("default", "a", "uid-1")
        );
        assert_eq!(header.labels[0], ("app".into(), "web".into()));
        assert_eq!(&*header.fields[0], "node-1");
    }

    #[test]
    fn resource_version_goes_between_uid_and_labels_and_replaces_an_older_one() {
        let once = with_resource_version(&pod(), 7).unwrap();
        let twice = with_resource_version(&once, 12345).unwrap();
        let meta = Fields(&twice).next().unwrap().unwrap().bytes().unwrap();
        let fields: Vec<_> = Fields(meta)
            .map(|f| f.unwrap())
            .map(|f| (f.tag, f.bytes().unwrap().to_vec()))
            .collect();
        assert_eq!(fields.iter().map(|f| f.0).collect::<Vec<_>>(), [1, 3, 5, 6, 11]);
        assert_eq!(fields[3].1, b"12345");
        assert_eq!(&*scan(&twice, &[node_name()]).unwrap().fields[0], "node-1");
    }

    #[test]
    fn truncated_bytes_are_an_error_not_a_panic() {
        let raw = pod();
        for len in 1..raw.len() {
            let short = &raw[..len];
            if let Ok(header) = scan(short, &[node_name()]) {
                assert!(header.name.is_empty() || &*header.name == "a");
            }
            drop(with_resource_version(short, 1));
        }
    }
}
