//! How answers of the keys API are printed.

use std::io::Write as _;

use super::keys::{Node, Response};
use crate::exit::Exit;
use crate::go::json::{Object, array, string};

pub fn print(response: &Response, format: &str) -> Result<(), Exit> {
    let Some(text) = text(response, format) else {
        eprintln!("Unsupported output format: {format}");
        return Ok(());
    };
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

fn text(response: &Response, format: &str) -> Option<String> {
    match format {
        "simple" => Some(simple(response)),
        "extended" => Some(extended(response)),
        "json" => Some(json(response) + "\n"),
        _ => None,
    }
}

fn simple(response: &Response) -> String {
    let node = &response.node;
    match &response.prev_node {
        Some(before) if response.action == "delete" => format!("PrevNode.Value: {}\n", before.value),
        _ => format!("{}\n", node.value),
    }
}

fn extended(response: &Response) -> String {
    let node = &response.node;
    let mut text = format!(
        "Key: {}\nCreated-Index: {}\nModified-Index: {}\n",
        node.key, node.created_index, node.modified_index
    );
    if let Some(before) = &response.prev_node {
        text.push_str(&format!("PrevNode.Value: {}\n", before.value));
    }
    text.push_str(&format!("TTL: {}\nIndex: {}\n", node.ttl, response.index));
    if response.action != "delete" {
        text.push_str(&format!("\n{}\n", node.value));
    }
    text
}

fn json(response: &Response) -> String {
    let before = response
        .prev_node
        .as_ref()
        .map_or_else(|| "null".to_owned(), json_node);
    Object::new()
        .always("action", string(&response.action))
        .always("node", json_node(&response.node))
        .always("prevNode", before)
        .end()
}

fn json_node(node: &Node) -> String {
    let nodes = node
        .nodes
        .as_ref()
        .map(|nodes| array(nodes.iter().map(json_node).collect()));
    Object::new()
        .always("key", string(&node.key))
        .flag("dir", node.dir)
        .always("value", string(&node.value))
        .always("nodes", nodes.unwrap_or_else(|| "null".to_owned()))
        .always("createdIndex", node.created_index.to_string())
        .always("modifiedIndex", node.modified_index.to_string())
        .some("expiration", node.expiration.as_deref().map(string))
        .number("ttl", node.ttl)
        .end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_answer_in_three_formats() {
        let body = r#"{"action":"delete","node":{"key":"/a","modifiedIndex":6,"createdIndex":5},
            "prevNode":{"key":"/a","value":"<c>","modifiedIndex":5,"createdIndex":5,"ttl":9}}"#;
        let mut response: Response = serde_json::from_str(body).unwrap();
        response.index = 6;
        assert_eq!(text(&response, "simple").unwrap(), "PrevNode.Value: <c>\n");
        assert_eq!(
            text(&response, "extended").unwrap(),
            "Key: /a\nCreated-Index: 5\nModified-Index: 6\nPrevNode.Value: <c>\nTTL: 0\nIndex: 6\n"
        );
        assert_eq!(
            text(&response, "json").unwrap(),
            "{\"action\":\"delete\",\"node\":{\"key\":\"/a\",\"value\":\"\",\"nodes\":null,\"createdIndex\":5,\"modifiedIndex\":6},\
             \"prevNode\":{\"key\":\"/a\",\"value\":\"\\u003cc\\u003e\",\"nodes\":null,\"createdIndex\":5,\"modifiedIndex\":5,\"ttl\":9}}\n"
        );
        assert!(text(&response, "yaml").is_none());
    }
}
