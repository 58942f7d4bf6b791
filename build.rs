//! Generates protobuf messages and gRPC services from `proto/`, without protoc.
//!
//! Messages go to `wire.rs` (included by `src/protocol/wire.rs`), services to
//! `services/` (included by `src/server/grpc.rs`): protocols do not know tonic.

use std::path::PathBuf;

const FILES: [&str; 8] = [
    "jaeger_api_v3.proto",
    "jaeger_collector.proto",
    "jaeger_metrics.proto",
    "jaeger_query.proto",
    "jaeger_storage_v1.proto",
    "jaeger_storage_v2.proto",
    "otlp_collector.proto",
    "otlp_logs_collector.proto",
];

/// Packages whose messages `src/protocol/wire.rs` holds, and where there.
const PACKAGES: [(&str, &str); 2] = [
    (".jaeger", "crate::protocol::wire::jaeger"),
    (
        ".opentelemetry.proto",
        "crate::protocol::wire::opentelemetry::proto",
    ),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;

    prost_build::Config::new()
        .bytes(["."])
        .include_file("wire.rs")
        .compile_fds(descriptors.clone())?;

    let services = PathBuf::from(std::env::var("OUT_DIR")?).join("services");
    std::fs::create_dir_all(&services)?;
    let mut builder = tonic_prost_build::configure()
        .build_transport(false)
        .out_dir(services);
    for (package, module) in PACKAGES {
        builder = builder.extern_path(package, module);
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}
