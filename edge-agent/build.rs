//! Built together with `ribera`, as `./run build` does, the program is linked with the DuckDB library although it uses
//! nothing of it. It then finds that library beside itself. What stores get (`./run package`) is built alone, without it.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).as_deref() == Ok(value);
    if is("CARGO_CFG_TARGET_FAMILY", "unix") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo:rustc-link-arg-bins=-Wl,-rpath,$ORIGIN");
    }
}
