//! Open and bind against `dlopen`, on an image as large as the design's example. Run by hand, in release:
//! `cargo test --release -p kiln-image --test image speed -- --ignored --nocapture`.

use std::process::Command;
use std::time::Instant;

use kiln_artifact::record::Linkage;
use kiln_globals::GlobalTable;
use kiln_image::{Image, ImageOptions, save, write_image};

use crate::support::{I64_TO_I64, Module};

const C_PROGRAM: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
#include <time.h>
int main(int argc, char **argv) {
    double best = 1e9;
    for (int i = 0; i < 500; i++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        void *h = dlopen(argv[1], RTLD_NOW);
        clock_gettime(CLOCK_MONOTONIC, &b);
        if (!h) return 1;
        dlclose(h);
        double t = (b.tv_sec - a.tv_sec) * 1e6 + (b.tv_nsec - a.tv_nsec) / 1e3;
        if (t < best) best = t;
    }
    printf("dlopen %.1f us\n", best);
    return 0;
}
"#;

#[test]
#[ignore = "a measurement"]
fn open_and_bind_against_dlopen() {
    let mut code = vec![0x90; 950];
    code.push(0xc3);
    let modules: Vec<_> = (0..26)
        .map(|number| {
            let mut module = Module::new();
            for function in 0..100 {
                module.function(&format!("f{number}_{function}"), Linkage::Export, I64_TO_I64, &code, &[]);
            }
            module.finish()
        })
        .collect();
    let start = Instant::now();
    let bytes = write_image(&modules, &GlobalTable::new(), &ImageOptions::default()).unwrap();
    println!("write_image of {} bytes: {:?}", bytes.len(), start.elapsed());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.so");
    save(&path, &bytes).unwrap();
    let best = (0..500).map(|_| {
        let start = Instant::now();
        let loaded = Image::open(&path).unwrap().bind_array(&[]).unwrap();
        let elapsed = start.elapsed();
        assert!(loaded.address("f25_99").is_some());
        elapsed
    });
    println!("open and bind: {:?}", best.min().unwrap());
    let start = Instant::now();
    Image::open(&path).unwrap().verify().unwrap();
    println!("verify: {:?}", start.elapsed());
    let (source, program) = (folder.path().join("main.c"), folder.path().join("main"));
    std::fs::write(&source, C_PROGRAM).unwrap();
    if Command::new("cc").args(["-O2", "-o"]).arg(&program).arg(&source).arg("-ldl").status().is_ok() {
        let output = Command::new(&program).arg(&path).output().unwrap();
        print!("{}", String::from_utf8_lossy(&output.stdout));
    }
}
