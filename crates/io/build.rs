//! Asks how libjpeg was built: with vector instructions, or (no nasm at hand) in plain C. `openvision doctor` says it.

fn main() {
    println!("cargo:rerun-if-env-changed=DEP_JPEG_INCLUDE");
    println!("cargo:rustc-check-cfg=cfg(jpeg_simd)");
    // `mozjpeg-sys` gives its folders of headers; the first holds the configuration that it was compiled with.
    let Some(folders) = std::env::var_os("DEP_JPEG_INCLUDE") else { return };
    let Some(configured) = std::env::split_paths(&folders).next() else { return };
    let text = std::fs::read_to_string(configured.join("jconfig.h")).unwrap_or_default();
    if text.contains("#define WITH_SIMD 1") {
        println!("cargo:rustc-cfg=jpeg_simd");
    }
}
