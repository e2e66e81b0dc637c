//! The part of the CRI's messages that tests need, with its field numbers. Source: k8s.io/cri-api, runtime/v1/api.proto.
#![expect(missing_docs, reason = "the CRI's words")]

use std::collections::HashMap;

use prost::Message;

/// One message for each line: `Name { kind field = number, … }`.
macro_rules! messages {
    ($($name:ident { $($(#[$attribute:meta])* $field:ident: $kind:ty),* $(,)? })*) => {
        $(#[derive(Clone, PartialEq, Message)]
        pub struct $name { $($(#[$attribute])* pub $field: $kind),* })*
    };
}

messages! {
    Empty {}
    Version { #[prost(string, tag = "3")] runtime_version: String }
    Status { #[prost(message, repeated, tag = "3")] handlers: Vec<Handler> }
    Handler {
        #[prost(string, tag = "1")] name: String,
        #[prost(message, optional, tag = "2")] features: Option<HandlerFeatures>,
    }
    HandlerFeatures {
        #[prost(bool, tag = "1")] recursive_read_only_mounts: bool,
        #[prost(bool, tag = "2")] user_namespaces: bool,
    }
    RunPodSandbox {
        #[prost(message, optional, tag = "1")] config: Option<PodConfig>,
        #[prost(string, tag = "2")] runtime_handler: String,
    }
    PodId { #[prost(string, tag = "1")] id: String }
    ContainerId { #[prost(string, tag = "1")] id: String }
    PodConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<PodMetadata>,
        #[prost(string, tag = "2")] hostname: String,
        #[prost(string, tag = "3")] log_directory: String,
        #[prost(map = "string, string", tag = "7")] annotations: HashMap<String, String>,
        #[prost(message, optional, tag = "8")] linux: Option<LinuxPod>,
    }
    PodMetadata {
        #[prost(string, tag = "1")] name: String,
        #[prost(string, tag = "2")] uid: String,
        #[prost(string, tag = "3")] namespace: String,
    }
    LinuxPod {
        #[prost(string, tag = "1")] cgroup_parent: String,
        #[prost(message, optional, tag = "2")] security_context: Option<PodSecurity>,
        #[prost(map = "string, string", tag = "3")] sysctls: HashMap<String, String>,
    }
    PodSecurity {
        #[prost(message, optional, tag = "1")] namespace_options: Option<Namespaces>,
        #[prost(bool, tag = "6")] privileged: bool,
        #[prost(message, optional, tag = "9")] seccomp: Option<Profile>,
    }
    Namespaces {
        #[prost(int32, tag = "1")] network: i32,
        #[prost(int32, tag = "2")] pid: i32,
        #[prost(int32, tag = "3")] ipc: i32,
        #[prost(message, optional, tag = "5")] users: Option<UserNamespace>,
    }
    UserNamespace {
        #[prost(int32, tag = "1")] mode: i32,
        #[prost(message, repeated, tag = "2")] uids: Vec<IdMapping>,
        #[prost(message, repeated, tag = "3")] gids: Vec<IdMapping>,
    }
    IdMapping {
        #[prost(uint32, tag = "1")] host: u32,
        #[prost(uint32, tag = "2")] container: u32,
        #[prost(uint32, tag = "3")] length: u32,
    }
    CreateContainer {
        #[prost(string, tag = "1")] pod: String,
        #[prost(message, optional, tag = "2")] config: Option<ContainerConfig>,
        #[prost(message, optional, tag = "3")] pod_config: Option<PodConfig>,
    }
    ContainerConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<ContainerMetadata>,
        #[prost(message, optional, tag = "2")] image: Option<Image>,
        #[prost(string, repeated, tag = "3")] command: Vec<String>,
        #[prost(string, tag = "11")] log_path: String,
        #[prost(bool, tag = "12")] stdin: bool,
        #[prost(bool, tag = "14")] tty: bool,
        #[prost(message, optional, tag = "15")] linux: Option<LinuxContainer>,
    }
    ContainerMetadata { #[prost(string, tag = "1")] name: String }
    Image { #[prost(string, tag = "1")] image: String }
    LinuxContainer {
        #[prost(message, optional, tag = "1")] resources: Option<Resources>,
        #[prost(message, optional, tag = "2")] security_context: Option<Security>,
    }
    Resources {
        #[prost(int64, tag = "1")] cpu_period: i64,
        #[prost(int64, tag = "2")] cpu_quota: i64,
        #[prost(int64, tag = "3")] cpu_shares: i64,
        #[prost(int64, tag = "4")] memory_limit: i64,
    }
    Security {
        #[prost(message, optional, tag = "1")] capabilities: Option<Capabilities>,
        #[prost(bool, tag = "2")] privileged: bool,
        #[prost(message, optional, tag = "3")] namespace_options: Option<Namespaces>,
        #[prost(message, optional, tag = "5")] run_as_user: Option<Int64>,
        #[prost(bool, tag = "7")] readonly_rootfs: bool,
        #[prost(int64, repeated, tag = "8")] supplemental_groups: Vec<i64>,
        #[prost(bool, tag = "11")] no_new_privs: bool,
        #[prost(message, optional, tag = "12")] run_as_group: Option<Int64>,
        #[prost(string, repeated, tag = "13")] masked_paths: Vec<String>,
        #[prost(string, repeated, tag = "14")] readonly_paths: Vec<String>,
        #[prost(message, optional, tag = "15")] seccomp: Option<Profile>,
    }
    Int64 { #[prost(int64, tag = "1")] value: i64 }
    Capabilities {
        #[prost(string, repeated, tag = "1")] add: Vec<String>,
        #[prost(string, repeated, tag = "2")] drop: Vec<String>,
    }
    Profile {
        #[prost(int32, tag = "1")] kind: i32,
        #[prost(string, tag = "2")] localhost: String,
    }
    ExecSync {
        #[prost(string, tag = "1")] id: String,
        #[prost(string, repeated, tag = "2")] command: Vec<String>,
        #[prost(int64, tag = "3")] timeout: i64,
    }
    Executed {
        #[prost(bytes = "vec", tag = "1")] stdout: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")] stderr: Vec<u8>,
        #[prost(int32, tag = "3")] exit_code: i32,
    }
    Exec {
        #[prost(string, tag = "1")] id: String,
        #[prost(string, repeated, tag = "2")] command: Vec<String>,
        #[prost(bool, tag = "3")] tty: bool,
        #[prost(bool, tag = "4")] stdin: bool,
        #[prost(bool, tag = "5")] stdout: bool,
        #[prost(bool, tag = "6")] stderr: bool,
    }
    Url { #[prost(string, tag = "1")] url: String }
    StopContainer {
        #[prost(string, tag = "1")] id: String,
        #[prost(int64, tag = "2")] timeout: i64,
    }
    UpdateResources {
        #[prost(string, tag = "1")] id: String,
        #[prost(message, optional, tag = "2")] linux: Option<Resources>,
    }
    ContainerStatusAnswer { #[prost(message, optional, tag = "1")] status: Option<ContainerStatus> }
    ContainerStatus {
        #[prost(int32, tag = "3")] state: i32,
        #[prost(int32, tag = "7")] exit_code: i32,
        #[prost(string, tag = "10")] reason: String,
    }
    PodStatusAnswer { #[prost(message, optional, tag = "1")] status: Option<PodStatus> }
    PodStatus { #[prost(int32, tag = "3")] state: i32 }
    StatsAnswer { #[prost(message, optional, tag = "1")] stats: Option<Stats> }
    Stats {
        #[prost(message, optional, tag = "2")] cpu: Option<Cpu>,
        #[prost(message, optional, tag = "3")] memory: Option<Memory>,
    }
    Cpu { #[prost(message, optional, tag = "2")] nanoseconds: Option<Uint64> }
    Memory { #[prost(message, optional, tag = "2")] working_set: Option<Uint64> }
    Uint64 { #[prost(uint64, tag = "1")] value: u64 }
}
