//! From a profile's plugin sets to lists by extension point, merged as upstream merges them: `multiPoint` over the
//! defaults, each point's own set over that.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Configuration, ProfileConfig};
use crate::framework::profile::{Enabled, Preemption, Profile};
use crate::framework::{Plugin, Point};
use crate::plugins::{self, ABSENT, TABLE};

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Plugins {
    pub pre_enqueue: PluginSet,
    pub queue_sort: PluginSet,
    pub pre_filter: PluginSet,
    pub filter: PluginSet,
    pub post_filter: PluginSet,
    pub pre_score: PluginSet,
    pub score: PluginSet,
    pub reserve: PluginSet,
    pub permit: PluginSet,
    pub pre_bind: PluginSet,
    pub bind: PluginSet,
    pub post_bind: PluginSet,
    pub multi_point: PluginSet,
    pub placement_generate: PluginSet,
    pub placement_score: PluginSet,
}

impl Plugins {
    fn at(&self, point: Point) -> &PluginSet {
        match point {
            Point::PreEnqueue => &self.pre_enqueue,
            Point::QueueSort => &self.queue_sort,
            Point::PreFilter => &self.pre_filter,
            Point::Filter => &self.filter,
            Point::PostFilter => &self.post_filter,
            Point::PreScore => &self.pre_score,
            Point::Score => &self.score,
            Point::Reserve => &self.reserve,
            Point::Permit => &self.permit,
            Point::PreBind => &self.pre_bind,
            Point::Bind => &self.bind,
            Point::PostBind => &self.post_bind,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PluginSet {
    pub enabled: Vec<PluginRef>,
    pub disabled: Vec<PluginRef>,
}

impl PluginSet {
    fn disables(&self, name: &str) -> bool {
        self.disabled.iter().any(|p| p.name == "*" || p.name == name)
    }

    fn enables(&self, name: &str) -> Option<&PluginRef> {
        self.enabled.iter().find(|p| p.name == name)
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PluginRef {
    pub name: String,
    #[serde(default)]
    pub weight: Option<i64>,
}

/// All profiles by scheduler name.
pub fn build(configuration: &Configuration) -> Result<HashMap<String, Profile>> {
    let profiles = configuration.profiles.iter().map(|wire| {
        let name = wire.scheduler_name.clone().unwrap_or_default();
        let profile = build_one(&name, wire).with_context(|| format!("profile {name:?}"))?;
        Ok((name, profile))
    });
    profiles.collect()
}

fn build_one(name: &str, wire: &ProfileConfig) -> Result<Profile> {
    let multi = merge_multi_point(&wire.plugins.multi_point);
    let mut made = Made {
        wire,
        plugins: HashMap::new(),
    };
    let mut points = HashMap::new();
    for point in Point::ALL {
        points.insert(point, made.at(point, &multi)?);
    }
    for config in &wire.plugin_config {
        // Arguments of plugins that run nowhere are still checked.
        made.get(&config.name)?;
    }
    let mut profile = Profile::new(name, points);
    profile.percentage_of_nodes_to_score = wire.percentage_of_nodes_to_score;
    profile.preemption = preemption(&made.args("DefaultPreemption"))?;
    check_complete(&profile)?;
    Ok(profile)
}

fn check_complete(profile: &Profile) -> Result<()> {
    if profile.at(Point::Bind).is_empty() {
        bail!(
            "at least one bind plugin is needed for profile with scheduler name {:?}",
            profile.scheduler_name
        );
    }
    match profile.at(Point::QueueSort).len() {
        1 => Ok(()),
        0 => bail!(
            "one queue sort plugin required for profile with scheduler name {:?}",
            profile.scheduler_name
        ),
        _ => bail!(
            "only one queue sort plugin required for profile with scheduler name {:?}",
            profile.scheduler_name
        ),
    }
}

/// The defaults less what is disabled; a default that is configured again keeps its place.
fn merge_multi_point(custom: &PluginSet) -> Vec<PluginRef> {
    let defaults = TABLE.iter().filter(|row| !custom.disables(row.name)).map(|row| {
        let weight = (row.weight > 0).then_some(row.weight);
        custom.enables(row.name).cloned().unwrap_or(PluginRef {
            name: row.name.to_owned(),
            weight,
        })
    });
    let mut merged: Vec<PluginRef> = defaults.collect();
    for plugin in &custom.enabled {
        if merged.iter().all(|p| p.name != plugin.name) {
            merged.push(plugin.clone());
        }
    }
    merged
}

/// Plugins made so far, each once per profile.
struct Made<'a> {
    wire: &'a ProfileConfig,
    plugins: HashMap<String, Option<Arc<dyn Plugin>>>,
}

impl Made<'_> {
    fn args(&self, name: &str) -> Value {
        let config = self.wire.plugin_config.iter().find(|c| c.name == name);
        config.map(|c| c.args.clone()).unwrap_or_default()
    }

    /// `None` for a plugin of upstream's that does not exist here.
    fn get(&mut self, name: &str) -> Result<Option<Arc<dyn Plugin>>> {
        if let Some(made) = self.plugins.get(name) {
            return Ok(made.clone());
        }
        let made = match plugins::find(name) {
            Some(row) if name == "DefaultPreemption" => Some((row.make)(&Value::Null)),
            Some(row) => Some((row.make)(&self.args(name))),
            None if ABSENT.contains(&name) => {
                tracing::warn!(
                    plugin = name,
                    "This scheduler does not have the plugin; it is left out"
                );
                None
            }
            None => bail!("{name:?} does not exist"),
        };
        let made = made
            .transpose()
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("plugin {name:?}: args"))?;
        self.plugins.insert(name.to_owned(), made.clone());
        Ok(made)
    }

    /// Plugins of the point's own set that also are in `multi` come first, then `multi`, then the rest of the set.
    fn at(&mut self, point: Point, multi: &[PluginRef]) -> Result<Vec<Enabled>> {
        let wire = self.wire;
        let own = wire.plugins.at(point);
        let in_multi = |p: &&PluginRef| multi.iter().any(|m| m.name == p.name);
        let overriding = own.enabled.iter().filter(in_multi);
        let inherited = multi
            .iter()
            .filter(|p| own.enables(&p.name).is_none() && !own.disables(&p.name));
        let added = own.enabled.iter().filter(|p| !in_multi(p));
        let mut list: Vec<Enabled> = Vec::new();
        for (plugin, explicit) in overriding
            .map(|p| (p, true))
            .chain(inherited.map(|p| (p, false)))
            .chain(added.map(|p| (p, true)))
        {
            let Some(made) = self.get(&plugin.name)? else {
                continue;
            };
            if !made.points().contains(&point) {
                if explicit {
                    bail!("plugin {:?} does not extend {point:?} plugin", plugin.name);
                }
                continue;
            }
            if list.iter().any(|e| e.plugin.name() == plugin.name) {
                bail!("plugin {:?} already registered as {point:?}", plugin.name);
            }
            list.push(Enabled {
                plugin: made,
                weight: plugin.weight.filter(|w| *w > 0).unwrap_or(1),
            });
        }
        Ok(list)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct PreemptionArgs {
    min_candidate_nodes_percentage: i64,
    min_candidate_nodes_absolute: i64,
}

impl Default for PreemptionArgs {
    fn default() -> Self {
        let default = Preemption::default();
        Self {
            min_candidate_nodes_percentage: default.min_candidate_nodes_percentage,
            min_candidate_nodes_absolute: default.min_candidate_nodes_absolute,
        }
    }
}

fn preemption(args: &Value) -> Result<Preemption> {
    let args: PreemptionArgs = plugins::args(args)
        .map_err(anyhow::Error::msg)
        .context("DefaultPreemption: args")?;
    let (percentage, absolute) = (
        args.min_candidate_nodes_percentage,
        args.min_candidate_nodes_absolute,
    );
    if !(0..=100).contains(&percentage) {
        bail!("minCandidateNodesPercentage: Invalid value: {percentage}: not in valid range [0, 100]");
    }
    if absolute < 0 || (percentage == 0 && absolute == 0) {
        bail!(
            "minCandidateNodesAbsolute: Invalid value: {absolute}: one of it and minCandidateNodesPercentage must be greater than 0"
        );
    }
    Ok(Preemption {
        min_candidate_nodes_percentage: percentage,
        min_candidate_nodes_absolute: absolute,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::complete;

    fn profile(yaml: &str) -> Result<Profile> {
        let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
        let kinds = [("kubescheduler.config.k8s.io/v1", "KubeSchedulerConfiguration")];
        let configuration = complete(component_base::config::parse(&format!("{head}{yaml}"), &kinds)?)?;
        let mut profiles = build(&configuration)?;
        Ok(profiles.remove("default-scheduler").expect("the profile"))
    }

    fn names(profile: &Profile, point: Point) -> Vec<&'static str> {
        profile.at(point).iter().map(|e| e.plugin.name()).collect()
    }

    #[test]
    fn the_default_profile_runs_upstreams_plugins_with_their_weights() {
        let default = profile("").expect("builds");
        assert_eq!(names(&default, Point::QueueSort), ["PrioritySort"]);
        assert_eq!(names(&default, Point::PreEnqueue), ["SchedulingGates"]);
        let weights: Vec<(&str, i64)> = default
            .at(Point::Score)
            .iter()
            .map(|e| (e.plugin.name(), e.weight))
            .collect();
        let wanted = [
            ("TaintToleration", 3),
            ("NodeAffinity", 2),
            ("NodeResourcesFit", 1),
            ("PodTopologySpread", 2),
            ("InterPodAffinity", 2),
            ("NodeResourcesBalancedAllocation", 1),
            ("ImageLocality", 1),
        ];
        assert_eq!(weights, wanted);
    }

    #[test]
    fn plugins_are_disabled_everywhere_or_at_one_point_and_weighed_anew() {
        let yaml = "profiles:\n- plugins:\n    multiPoint:\n      disabled: [{name: ImageLocality}]\n\
                    \x20   score:\n      disabled: [{name: NodeResourcesFit}]\n      enabled: [{name: NodeAffinity, weight: 7}]\n";
        let custom = profile(yaml).expect("builds");
        assert_eq!(names(&custom, Point::Score)[0], "NodeAffinity");
        assert_eq!(custom.at(Point::Score)[0].weight, 7);
        assert!(
            !custom.runs(Point::Score, "ImageLocality") && !custom.runs(Point::Score, "NodeResourcesFit")
        );
        assert!(custom.runs(Point::Filter, "NodeResourcesFit"));
    }

    #[test]
    fn a_star_empties_a_point() {
        let custom =
            profile("profiles:\n- plugins:\n    score:\n      disabled: [{name: '*'}]\n").expect("builds");
        assert!(custom.at(Point::Score).is_empty());
    }

    #[test]
    fn what_cannot_run_is_refused() {
        let cases = [
            (
                "profiles:\n- plugins:\n    filter:\n      enabled: [{name: Nonsense}]\n",
                "does not exist",
            ),
            (
                "profiles:\n- plugins:\n    score:\n      enabled: [{name: NodePorts}]\n",
                "does not extend",
            ),
            (
                "profiles:\n- plugins:\n    bind:\n      disabled: [{name: '*'}]\n",
                "bind plugin",
            ),
            (
                "profiles:\n- pluginConfig:\n  - name: NodeResourcesFit\n    args: {scoringStrategy: {type: Bad}}\n",
                "scoringStrategy",
            ),
            (
                "profiles:\n- pluginConfig:\n  - name: DefaultPreemption\n    args: {minCandidateNodesPercentage: 101}\n",
                "minCandidateNodesPercentage",
            ),
        ];
        for (yaml, wanted) in cases {
            let error = profile(yaml).err().map(|e| format!("{e:#}")).expect(yaml);
            assert!(error.contains(wanted), "{error}");
        }
    }
}
