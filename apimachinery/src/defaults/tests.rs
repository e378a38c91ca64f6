use super::*;
use crate::json::{self, FieldValidation};
use crate::schema::Gvk;

fn defaulted(group: &str, version: &str, kind: &str, text: &str) -> Value {
    let ty = registry().kind(Gvk::new(group, version, kind)).unwrap();
    let mut value = json::decode(text.as_bytes(), Some(ty), FieldValidation::Strict)
        .unwrap()
        .value;
    apply(&mut value, ty);
    // Defaulting must not leave the image of the type, nor its order.
    let again = json::conform(&value, ty, FieldValidation::Strict).unwrap().value;
    let print = |value| String::from_utf8(json::to_vec(value)).unwrap();
    assert_eq!(print(&again), print(&value));
    let mut twice = value.clone();
    apply(&mut twice, ty);
    assert_eq!(twice, value);
    value
}

#[test]
fn a_pod_gets_upstreams_defaults() {
    let pod = defaulted(
        "",
        "v1",
        "Pod",
        r#"{"metadata":{"name":"p"},"spec":{"hostNetwork":true,"volumes":[{"name":"e"},{"name":"s","secret":{"secretName":"x"}}],
        "containers":[{"name":"c","image":"nginx","ports":[{"containerPort":80}],"resources":{"limits":{"cpu":"1","memory":"1.0005"}},
        "livenessProbe":{"httpGet":{"port":80}}}]}}"#,
    );
    assert_eq!(
        String::from_utf8(json::to_vec(pod.get("spec").unwrap())).unwrap(),
        r#"{"volumes":[{"name":"e","emptyDir":{}},{"name":"s","secret":{"secretName":"x","defaultMode":420}}],"containers":[{"name":"c","image":"nginx","ports":[{"hostPort":80,"containerPort":80,"protocol":"TCP"}],"resources":{"limits":{"cpu":"1","memory":"1001m"},"requests":{"cpu":"1","memory":"1001m"}},"livenessProbe":{"httpGet":{"path":"/","port":80,"scheme":"HTTP"},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"Always"}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","hostNetwork":true,"securityContext":{},"schedulerName":"default-scheduler","enableServiceLinks":true}"#
    );
}

#[test]
fn given_values_stay() {
    let pod = defaulted(
        "",
        "v1",
        "Pod",
        r#"{"spec":{"restartPolicy":"Never","terminationGracePeriodSeconds":0,"enableServiceLinks":false,"containers":[{"name":"c","image":"a:1","imagePullPolicy":"Never"}]}}"#,
    );
    assert_eq!(pod.str_at("spec.restartPolicy"), "Never");
    assert_eq!(pod.int_at("spec.terminationGracePeriodSeconds"), Some(0));
    assert_eq!(pod.at("spec.enableServiceLinks"), Some(&Value::Bool(false)));
    assert_eq!(
        pod.list_at("spec.containers")[0].str_at("imagePullPolicy"),
        "Never"
    );
}

#[test]
fn a_deployment_rolls_a_quarter_at_a_time() {
    let deployment = defaulted(
        "apps",
        "v1",
        "Deployment",
        r#"{"spec":{"selector":{},"template":{"spec":{"containers":[{"name":"c"}]}}}}"#,
    );
    assert_eq!(deployment.int_at("spec.replicas"), Some(1));
    assert_eq!(deployment.str_at("spec.strategy.rollingUpdate.maxSurge"), "25%");
    assert_eq!(deployment.str_at("spec.strategy.type"), "RollingUpdate");
    assert_eq!(deployment.int_at("spec.progressDeadlineSeconds"), Some(600));
    assert_eq!(deployment.str_at("spec.template.spec.dnsPolicy"), "ClusterFirst");
    assert_eq!(deployment.at("spec.template.spec.enableServiceLinks"), None);
    let recreate = defaulted(
        "apps",
        "v1",
        "Deployment",
        r#"{"spec":{"strategy":{"type":"Recreate"}}}"#,
    );
    assert_eq!(recreate.at("spec.strategy.rollingUpdate"), None);
}

#[test]
fn a_service_is_reachable_at_its_own_port() {
    let service = defaulted(
        "",
        "v1",
        "Service",
        r#"{"spec":{"ports":[{"port":80},{"port":443,"targetPort":"https"}],"type":"NodePort","sessionAffinity":"ClientIP"}}"#,
    );
    let ports = service.list_at("spec.ports");
    assert_eq!(
        (ports[0].int_at("targetPort"), ports[0].str_at("protocol")),
        (Some(80), "TCP")
    );
    assert_eq!(ports[1].str_at("targetPort"), "https");
    assert_eq!(
        service.int_at("spec.sessionAffinityConfig.clientIP.timeoutSeconds"),
        Some(10_800)
    );
    assert_eq!(service.str_at("spec.externalTrafficPolicy"), "Cluster");
    assert_eq!(service.str_at("spec.internalTrafficPolicy"), "Cluster");
}

#[test]
fn jobs_are_defaulted_but_cron_jobs_templates_are_not() {
    let job = defaulted(
        "batch",
        "v1",
        "Job",
        r#"{"spec":{"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":null}}}}"#,
    );
    assert_eq!(job.int_at("spec.completions"), Some(1));
    assert_eq!(job.str_at("metadata.labels.a"), "b");
    assert_eq!(job.str_at("spec.podReplacementPolicy"), "TerminatingOrFailed");
    let cron = defaulted(
        "batch",
        "v1",
        "CronJob",
        r#"{"spec":{"schedule":"* * * * *","jobTemplate":{"spec":{"template":{}}}}}"#,
    );
    assert_eq!(cron.int_at("spec.jobTemplate.spec.completions"), None);
    assert_eq!(
        cron.str_at("spec.jobTemplate.spec.template.spec.restartPolicy"),
        "Always"
    );
    assert_eq!(cron.int_at("spec.successfulJobsHistoryLimit"), Some(3));
}

#[test]
fn other_kinds_follow_their_own_fields() {
    let namespace = defaulted("", "v1", "Namespace", r#"{"metadata":{"name":"ns"}}"#);
    assert_eq!(
        namespace
            .at("metadata.labels")
            .unwrap()
            .get("kubernetes.io/metadata.name"),
        Some(&"ns".into())
    );
    assert_eq!(namespace.str_at("status.phase"), "Active");
    let binding = defaulted(
        "rbac.authorization.k8s.io",
        "v1",
        "ClusterRoleBinding",
        r#"{"roleRef":{"kind":"ClusterRole","name":"r"},"subjects":[{"kind":"User","name":"u"},{"kind":"ServiceAccount","name":"s"}]}"#,
    );
    assert_eq!(binding.str_at("roleRef.apiGroup"), "rbac.authorization.k8s.io");
    assert_eq!(
        binding.list_at("subjects")[0].str_at("apiGroup"),
        "rbac.authorization.k8s.io"
    );
    assert_eq!(binding.list_at("subjects")[1].get("apiGroup"), None);
    let range = defaulted(
        "",
        "v1",
        "LimitRange",
        r#"{"spec":{"limits":[{"type":"Container","max":{"cpu":"2"},"min":{"memory":"1Mi"}}]}}"#,
    );
    let item = &range.list_at("spec.limits")[0];
    assert_eq!(item.str_at("default.cpu"), "2");
    assert_eq!(
        (
            item.str_at("defaultRequest.cpu"),
            item.str_at("defaultRequest.memory")
        ),
        ("2", "1Mi")
    );
    let policy = defaulted(
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        r#"{"spec":{"podSelector":{},"egress":[{}]}}"#,
    );
    assert_eq!(
        policy.list_at("spec.policyTypes"),
        ["Ingress".into(), "Egress".into()]
    );
    let scaler = defaulted(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        r#"{"spec":{"scaleTargetRef":{"kind":"D","name":"d"},"maxReplicas":3,"behavior":{"scaleDown":{}}}}"#,
    );
    assert_eq!(
        scaler.list_at("spec.metrics")[0].int_at("resource.target.averageUtilization"),
        Some(80)
    );
    assert_eq!(scaler.list_at("spec.behavior.scaleUp.policies").len(), 2);
    assert_eq!(
        scaler.at("spec.behavior.scaleDown.stabilizationWindowSeconds"),
        None
    );
}

#[test]
fn pod_level_resources_come_from_containers_and_limits() {
    let pod = defaulted(
        "",
        "v1",
        "Pod",
        r#"{"spec":{"resources":{"limits":{"cpu":"4","memory":"1Gi"}},"containers":[{"name":"a","resources":{"requests":{"cpu":"1"}}},{"name":"b","resources":{"requests":{"cpu":"500m"}}}]}}"#,
    );
    assert_eq!(pod.str_at("spec.resources.requests.cpu"), "1500m");
    assert_eq!(pod.str_at("spec.resources.requests.memory"), "1Gi");
}

#[test]
fn fields_that_mirror_each_other_agree() {
    let pod = defaulted(
        "",
        "v1",
        "Pod",
        r#"{"spec":{"containers":[],"serviceAccount":"sa","terminationGracePeriodSeconds":-5},"status":{"podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.2"}]}}"#,
    );
    assert_eq!(
        (
            pod.str_at("spec.serviceAccount"),
            pod.str_at("spec.serviceAccountName")
        ),
        ("sa", "sa")
    );
    assert_eq!(pod.int_at("spec.terminationGracePeriodSeconds"), Some(1));
    assert_eq!(pod.list_at("status.podIPs")[0].str_at("ip"), "10.0.0.1");
    let node = defaulted("", "v1", "Node", r#"{"spec":{"podCIDR":"10.244.1.0/24"}}"#);
    assert_eq!(node.list_at("spec.podCIDRs"), ["10.244.1.0/24".into()]);
    let set = defaulted(
        "apps",
        "v1",
        "StatefulSet",
        r#"{"spec":{"volumeClaimTemplates":[{"metadata":{"name":"d"}}]}}"#,
    );
    let claim = &set.list_at("spec.volumeClaimTemplates")[0];
    assert_eq!(
        (claim.str_at("kind"), claim.str_at("status.phase")),
        ("PersistentVolumeClaim", "Pending")
    );
}
