//! Leaves debugging tables out of the component: they are many times its code. Names stay.

fn main() {
    if std::env::var("CARGO_CFG_TARGET_FAMILY").as_deref() == Ok("wasm") {
        println!("cargo:rustc-link-arg-cdylib=--strip-debug");
    }
}
