//! Removes images that nothing uses when their file system is fuller than `imageGCHighThresholdPercent`, those unused for longest first.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cri::{Runtime, v1};

use crate::events::{Recorder, Severity};
use crate::pleg::StatusCache;

const PERIOD: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy)]
pub struct GcPolicy {
    pub high_percent: u8,
    pub low_percent: u8,
    pub min_age: Duration,
}

pub struct ImageGc {
    pub runtime: Arc<dyn Runtime>,
    pub cache: Arc<StatusCache>,
    pub recorder: Recorder,
    pub policy: GcPolicy,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    first: Instant,
    last_used: Option<Instant>,
}

impl ImageGc {
    pub async fn run(self) {
        let mut seen = HashMap::new();
        loop {
            if let Err(error) = self.collect(&mut seen).await {
                tracing::error!(%error, "Image garbage collection failed");
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    async fn collect(&self, seen: &mut HashMap<String, Seen>) -> anyhow::Result<()> {
        let images = self.runtime.list_images().await?;
        let in_use = self.in_use();
        note(seen, &images, &in_use, Instant::now());
        let Some(usage) = self.usage().await? else {
            return Ok(());
        };
        let to_free = to_free(usage, self.policy);
        if to_free == 0 {
            return Ok(());
        }
        tracing::info!(
            bytes = to_free,
            "Disk usage on image filesystem is over the high threshold, trying to free bytes down to the low threshold"
        );
        let mut freed = 0;
        for id in choose(
            &images,
            &in_use,
            seen,
            self.policy.min_age,
            to_free,
            Instant::now(),
        ) {
            let size = images.iter().find(|i| i.id == id).map_or(0, |i| i.size);
            match self
                .runtime
                .remove_image(v1::ImageSpec {
                    image: id.clone(),
                    ..Default::default()
                })
                .await
            {
                Ok(()) => freed += size,
                Err(error) => tracing::warn!(image = id, %error, "Failed to remove image"),
            }
        }
        if freed < to_free {
            let message = format!(
                "Failed to garbage collect required amount of images. Attempted to free {to_free} bytes, but only found {freed} bytes eligible to free."
            );
            self.recorder
                .node(Severity::Warning, "FreeDiskSpaceFailed", &message);
        }
        Ok(())
    }

    fn in_use(&self) -> HashSet<String> {
        self.cache
            .all()
            .iter()
            .flat_map(|p| {
                p.containers
                    .iter()
                    .flat_map(|c| [c.image_ref.clone(), c.image.clone()])
            })
            .collect()
    }

    /// Capacity and available bytes of the images' file system.
    async fn usage(&self) -> anyhow::Result<Option<(u64, u64)>> {
        let info = self.runtime.image_fs_info().await?;
        let place = info
            .image_filesystems
            .first()
            .and_then(|f| f.fs_id.as_ref())
            .map(|id| id.mountpoint.clone());
        let Some(stat) = place.and_then(|p| rustix::fs::statvfs(Path::new(&p)).ok()) else {
            return Ok(None);
        };
        Ok(Some((
            stat.f_blocks.saturating_mul(stat.f_frsize),
            stat.f_bavail.saturating_mul(stat.f_frsize),
        )))
    }
}

fn to_free((capacity, available): (u64, u64), policy: GcPolicy) -> u64 {
    if capacity == 0 {
        return 0;
    }
    let used_percent = 100 - available.min(capacity) * 100 / capacity;
    if used_percent < u64::from(policy.high_percent) {
        return 0;
    }
    let wanted = capacity * (100 - u64::from(policy.low_percent)) / 100;
    wanted.saturating_sub(available)
}

fn is_used(image: &v1::Image, in_use: &HashSet<String>) -> bool {
    in_use.contains(&image.id)
        || image
            .repo_tags
            .iter()
            .chain(&image.repo_digests)
            .any(|n| in_use.contains(n))
}

fn note(seen: &mut HashMap<String, Seen>, images: &[v1::Image], in_use: &HashSet<String>, now: Instant) {
    for image in images {
        let entry = seen.entry(image.id.clone()).or_insert(Seen {
            first: now,
            last_used: None,
        });
        if is_used(image, in_use) {
            entry.last_used = Some(now);
        }
    }
    seen.retain(|id, _| images.iter().any(|i| &i.id == id));
}

fn choose(
    images: &[v1::Image],
    in_use: &HashSet<String>,
    seen: &HashMap<String, Seen>,
    min_age: Duration,
    to_free: u64,
    now: Instant,
) -> Vec<String> {
    let mut free: Vec<(&v1::Image, Seen)> = images
        .iter()
        .filter(|i| !i.pinned && !is_used(i, in_use))
        .filter_map(|i| Some((i, *seen.get(&i.id)?)))
        .filter(|(_, s)| now.duration_since(s.first) >= min_age)
        .collect();
    free.sort_by_key(|(_, s)| (s.last_used, s.first));
    let mut sum = 0;
    let enough = free.into_iter().take_while(|(i, _)| {
        let more = sum < to_free;
        sum += i.size;
        more
    });
    enough.map(|(i, _)| i.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, size: u64) -> v1::Image {
        v1::Image {
            id: id.into(),
            size,
            ..Default::default()
        }
    }

    #[test]
    fn only_a_full_disk_is_freed_down_to_the_low_threshold() {
        let policy = GcPolicy {
            high_percent: 85,
            low_percent: 80,
            min_age: Duration::ZERO,
        };
        assert_eq!(to_free((1000, 160), policy), 0);
        assert_eq!(to_free((1000, 100), policy), 100);
    }

    #[test]
    fn the_longest_unused_go_first_and_used_or_young_ones_stay() {
        let now = Instant::now() + Duration::from_secs(1000);
        let at = |s| now - Duration::from_secs(s);
        let images = [
            image("used", 10),
            image("old", 10),
            image("recent", 10),
            image("young", 10),
        ];
        let seen = HashMap::from([
            (
                "used".to_string(),
                Seen {
                    first: at(900),
                    last_used: Some(now),
                },
            ),
            (
                "old".to_string(),
                Seen {
                    first: at(900),
                    last_used: None,
                },
            ),
            (
                "recent".to_string(),
                Seen {
                    first: at(900),
                    last_used: Some(at(10)),
                },
            ),
            (
                "young".to_string(),
                Seen {
                    first: at(1),
                    last_used: None,
                },
            ),
        ]);
        let in_use = HashSet::from(["used".to_string()]);
        let pick = |bytes| choose(&images, &in_use, &seen, Duration::from_secs(120), bytes, now);
        assert_eq!(pick(5), ["old"]);
        assert_eq!(pick(100), ["old", "recent"]);
    }
}
