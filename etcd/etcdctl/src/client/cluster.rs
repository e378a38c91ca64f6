//! Calls that more than one command makes, to the cluster and to one endpoint.

use etcd_api::etcdserverpb::alarm_request::AlarmAction;
use etcd_api::etcdserverpb::cluster_client::ClusterClient;
use etcd_api::etcdserverpb::maintenance_client::MaintenanceClient;
use etcd_api::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DefragmentRequest,
    DefragmentResponse, MemberListRequest, MemberListResponse, StatusRequest, StatusResponse,
};

use super::{Client, Context, Error, Policy};
use crate::unary;

impl Client {
    pub async fn member_list(
        &self,
        context: &Context,
        linearizable: bool,
    ) -> Result<MemberListResponse, Error> {
        let request = MemberListRequest { linearizable };
        let policy = Policy::Repeatable;
        unary!(
            self,
            context,
            policy,
            ClusterClient,
            member_list,
            "/etcdserverpb.Cluster/MemberList",
            request
        )
    }

    pub async fn alarm_list(&self, context: &Context) -> Result<AlarmResponse, Error> {
        let request = AlarmRequest {
            action: AlarmAction::Get.into(),
            ..Default::default()
        };
        self.alarm(context, request).await
    }

    pub async fn alarm(&self, context: &Context, request: AlarmRequest) -> Result<AlarmResponse, Error> {
        let policy = Policy::Repeatable;
        unary!(
            self,
            context,
            policy,
            MaintenanceClient,
            alarm,
            "/etcdserverpb.Maintenance/Alarm",
            request
        )
    }

    pub async fn status(&self, context: &Context) -> Result<StatusResponse, Error> {
        let request = StatusRequest {};
        let policy = Policy::Repeatable;
        unary!(
            self,
            context,
            policy,
            MaintenanceClient,
            status,
            "/etcdserverpb.Maintenance/Status",
            request
        )
    }

    pub async fn defragment(&self, context: &Context) -> Result<DefragmentResponse, Error> {
        let request = DefragmentRequest {};
        let policy = Policy::NonRepeatable;
        unary!(
            self,
            context,
            policy,
            MaintenanceClient,
            defragment,
            "/etcdserverpb.Maintenance/Defragment",
            request
        )
    }

    pub async fn compact(
        &self,
        context: &Context,
        revision: i64,
        physical: bool,
    ) -> Result<CompactionResponse, Error> {
        use etcd_api::etcdserverpb::kv_client::KvClient;
        let request = CompactionRequest { revision, physical };
        unary!(
            self,
            context,
            Policy::NonRepeatable,
            KvClient,
            compact,
            "/etcdserverpb.KV/Compact",
            request
        )
    }
}
