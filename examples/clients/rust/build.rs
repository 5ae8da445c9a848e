//! Generates the client from the `.proto` files. `protox` is a compiler for them in Rust, so there
//! is nothing to install.

use std::error::Error;

const PROTOS: &str = "../../../protos";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={PROTOS}/runkon/v1");
    let files = ["runs", "gates", "workers"].map(|name| format!("runkon/v1/{name}.proto"));
    let descriptors = protox::compile(files, [PROTOS])?;
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(descriptors)?;
    Ok(())
}
