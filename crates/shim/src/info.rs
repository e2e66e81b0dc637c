//! `-info`: what the runtime can do, for containerd 2. The options that it is asked about come and go as in runc's shim.

use std::io::{Read, Write};

use anyhow::Context;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};

use crate::RUNTIME;
use crate::options::Options;

pub fn info() -> anyhow::Result<()> {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input).context("cannot read the options")?;
    let options = Any::parse_from_bytes(&input).context("the options")?;
    // Nothing can be done with those that no container can be started with.
    Options::of(&options)?;
    let features = Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/features/Features".into(),
        value: serde_json::to_vec(&lxcrun::features())?,
        ..Any::default()
    };
    let version = RuntimeVersion { version: env!("CARGO_PKG_VERSION").into(), ..RuntimeVersion::default() };
    let info = RuntimeInfo {
        name: RUNTIME.into(),
        version: MessageField::some(version),
        options: MessageField(Some(options).filter(|any| !any.type_url.is_empty()).map(Box::new)),
        features: MessageField::some(features),
        ..RuntimeInfo::default()
    };
    std::io::stdout().write_all(&info.write_to_bytes()?).context("cannot tell about the runtime")
}
