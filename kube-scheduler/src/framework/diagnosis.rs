//! Why a pod fits nowhere, in upstream's words.

use std::collections::{BTreeMap, BTreeSet};

/// The event's text is cut here; the pod's condition has it whole.
const NOTE_LENGTH_LIMIT: usize = 1024;

/// Everything that a failed decision has to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    pub total_nodes: usize,
    /// A plugin ruled out all nodes at once.
    pub pre_filter: Option<String>,
    /// How many nodes were refused for which reason.
    pub reasons: BTreeMap<String, usize>,
    /// What preemption found.
    pub post_filter: String,
    /// Plugins whose refusals must go away before another try makes sense.
    pub plugins: BTreeSet<&'static str>,
}

impl Diagnosis {
    /// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). preemption: …`
    pub fn message(&self) -> String {
        let mut message = format!("0/{} nodes are available:", self.total_nodes);
        let filters = self.pre_filter.clone().unwrap_or_else(|| self.histogram());
        if !filters.is_empty() {
            message += &format!(" {filters}.");
        }
        if !self.post_filter.is_empty() {
            message += &format!(" {}", self.post_filter);
        }
        message
    }

    /// Sorted as text, so that "10 x" comes before "2 y", as upstream has it.
    fn histogram(&self) -> String {
        let mut parts: Vec<String> = self
            .reasons
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        parts.sort();
        parts.join(", ")
    }

    pub fn add(&mut self, reason: &str, nodes: usize) {
        match self.reasons.get_mut(reason) {
            Some(count) => *count += nodes,
            None => {
                self.reasons.insert(reason.to_owned(), nodes);
            }
        }
    }
}

/// The message as an event may carry it.
pub fn truncated(message: &str) -> String {
    const SUFFIX: &str = " ...";
    if message.len() <= NOTE_LENGTH_LIMIT {
        return message.to_owned();
    }
    let cut = (0..=NOTE_LENGTH_LIMIT - SUFFIX.len())
        .rev()
        .find(|at| message.is_char_boundary(*at));
    format!("{}{SUFFIX}", &message[..cut.unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_reads_as_upstreams() {
        let mut diagnosis = Diagnosis {
            total_nodes: 13,
            ..Diagnosis::default()
        };
        diagnosis.add("node(s) had untolerated taint(s)", 2);
        diagnosis.add("Insufficient cpu", 10);
        diagnosis.add("node(s) had untolerated taint(s)", 1);
        diagnosis.post_filter = "preemption: not eligible due to preemptionPolicy=Never.".into();
        assert_eq!(
            diagnosis.message(),
            "0/13 nodes are available: 10 Insufficient cpu, 3 node(s) had untolerated taint(s). \
             preemption: not eligible due to preemptionPolicy=Never."
        );
    }

    #[test]
    fn a_pre_filter_message_replaces_the_histogram() {
        let diagnosis = Diagnosis {
            total_nodes: 2,
            pre_filter: Some("pod has unbound immediate PersistentVolumeClaims".into()),
            ..Diagnosis::default()
        };
        assert_eq!(
            diagnosis.message(),
            "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."
        );
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let cut = truncated(&"ä".repeat(1000));
        assert!(cut.len() <= NOTE_LENGTH_LIMIT && cut.ends_with("ä ..."));
        assert_eq!(truncated("short"), "short");
    }
}
