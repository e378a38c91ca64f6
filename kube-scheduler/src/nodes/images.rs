//! Which nodes have which image, for the score that prefers nodes that need not pull.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ContainerImage;

use super::Row;

/// An image somewhere in the cluster.
#[derive(Default)]
pub struct Image {
    /// As the first node that reported it had it.
    size_bytes: i64,
    rows: Vec<Row>,
}

impl Image {
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Size, scaled by the share of nodes that have the image: rare images attract less, so that one node that
    /// happens to have it does not get every replica.
    pub fn scaled_size(&self, total_nodes: usize) -> i64 {
        let spread = self.rows.len() as f64 / total_nodes as f64;
        (self.size_bytes as f64 * spread) as i64
    }
}

#[derive(Default)]
pub struct Images {
    by_name: HashMap<Arc<str>, Image>,
    by_row: HashMap<Row, Vec<Arc<str>>>,
}

impl Images {
    pub fn set(&mut self, row: Row, images: &[ContainerImage]) {
        let names = |i: &'_ ContainerImage| i.names.clone().unwrap_or_default();
        let new: Vec<(String, i64)> = images
            .iter()
            .flat_map(|i| {
                names(i)
                    .into_iter()
                    .map(|n| (n, i.size_bytes.unwrap_or_default()))
            })
            .collect();
        if self.is_unchanged(row, &new) {
            return;
        }
        self.clear(row);
        let mut kept = Vec::with_capacity(new.len());
        for (name, size_bytes) in new {
            let name: Arc<str> = name.into();
            let image = self.by_name.entry(Arc::clone(&name)).or_insert(Image {
                size_bytes,
                rows: Vec::new(),
            });
            if !image.rows.contains(&row) {
                image.rows.push(row);
            }
            kept.push(name);
        }
        if !kept.is_empty() {
            self.by_row.insert(row, kept);
        }
    }

    fn is_unchanged(&self, row: Row, new: &[(String, i64)]) -> bool {
        let old = self.by_row.get(&row).map(Vec::as_slice).unwrap_or_default();
        old.len() == new.len() && old.iter().zip(new).all(|(old, (new, _))| **old == **new)
    }

    fn clear(&mut self, row: Row) {
        for name in self.by_row.remove(&row).unwrap_or_default() {
            if let Some(image) = self.by_name.get_mut(&name) {
                image.rows.retain(|r| *r != row);
                if image.rows.is_empty() {
                    self.by_name.remove(&name);
                }
            }
        }
    }

    /// By the name in a pod; one without a tag means `latest`.
    pub fn get(&self, name: &str) -> Option<&Image> {
        self.by_name.get(&*normalized(name))
    }
}

fn normalized(name: &str) -> std::borrow::Cow<'_, str> {
    if name.rfind(':') <= name.rfind('/') {
        format!("{name}:latest").into()
    } else {
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, size: i64) -> ContainerImage {
        ContainerImage {
            names: Some(vec![name.to_owned()]),
            size_bytes: Some(size),
        }
    }

    #[test]
    fn names_without_a_tag_mean_latest() {
        for (given, wanted) in [
            ("a", "a:latest"),
            ("host:5000/a", "host:5000/a:latest"),
            ("h/a:1", "h/a:1"),
        ] {
            assert_eq!(normalized(given), wanted);
        }
    }

    #[test]
    fn an_image_counts_the_nodes_that_have_it() {
        let mut images = Images::default();
        images.set(0, &[image("a:1", 1000)]);
        images.set(1, &[image("a:1", 2000), image("b:1", 10)]);
        assert_eq!(images.get("a:1").map(|i| i.scaled_size(4)), Some(500));
        images.set(1, &[]);
        assert_eq!(images.get("a:1").map(|i| i.rows().to_vec()), Some(vec![0]));
        assert!(images.get("b:1").is_none());
    }
}
