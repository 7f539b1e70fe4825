//! Which triples are targets: each has code of its own, or is refused by name.

use kiln_ir::{ModuleSettings, Target, TargetError};

#[test]
fn triples() {
    let accepted = [
        ("x86_64", "x86_64-unknown-linux-gnu"),
        ("aarch64", "aarch64-unknown-linux-gnu"),
        ("riscv64gc", "riscv64gc-unknown-linux-gnu"),
        ("s390x-ibm-linux-gnu", "s390x-ibm-linux-gnu"),
        ("x86_64-unknown-linux-musl", "x86_64-unknown-linux-musl"),
        ("aarch64-linux-android", "aarch64-linux-android"),
    ];
    for (text, triple) in accepted {
        assert_eq!(Target::parse(text).unwrap().triple().to_string(), triple);
    }
    let refused = [
        ("aarch64_be-unknown-linux-gnu", "aarch64 is little-endian"),
        ("aarch64-unknown-linux-gnu_ilp32", "pointers have 64 bits"),
        ("x86_64-unknown-linux-gnux32", "pointers have 64 bits"),
        ("x86_64-unknown-unknown-gnux32", "pointers have 64 bits"),
        ("riscv64imac-unknown-linux-gnu", "`riscv64imac` is none of x86_64, aarch64, riscv64gc and s390x"),
        ("riscv32gc-unknown-linux-gnu", "`riscv32gc` is none of x86_64, aarch64, riscv64gc and s390x"),
        ("x86_64h-apple-darwin", "`x86_64h` is none of x86_64, aarch64, riscv64gc and s390x"),
        ("i686-unknown-linux-gnu", "`i686` is none of x86_64, aarch64, riscv64gc and s390x"),
        ("wasm32", "`wasm32` is none of x86_64, aarch64, riscv64gc and s390x"),
        ("pulley64", "`pulley64` is none of x86_64, aarch64, riscv64gc and s390x"),
        ("aarch64-apple-darwin", "Linux only"),
        ("x86_64-pc-windows-msvc", "Linux only"),
        ("aarch64-unknown-none", "Linux only"),
        ("x86_64-unknown-linux-gnu-macho", "files are ELF, not macho"),
        ("x86_64-unknown-linux-gnueabihf", "`gnueabihf` is no ABI"),
        ("x86_64-unknown-linux-sgx", "`sgx` is no ABI"),
    ];
    for (text, reason) in refused {
        let error = Target::parse(text).unwrap_err();
        assert!(matches!(error, TargetError::Unsupported { .. }), "{text}: {error}");
        assert!(error.to_string().contains(reason), "{text}: {error}");
    }
    assert!(matches!(Target::parse("no_machine-at-all"), Err(TargetError::Triple { .. })));
}

/// Whatever a triple is made of, it is refused when it is parsed, or has code for itself.
#[test]
fn every_triple_has_code_or_a_reason() {
    let architectures = "aarch64 aarch64_be amdgcn arm armeb armv7 avr bpfeb bpfel hexagon i386 i686 \
        loongarch64 m68k mips mips64 mips64el msp430 nvptx64 powerpc powerpc64 powerpc64le pulley32 \
        pulley64 pulley64be riscv32 riscv32imac riscv64 riscv64gc riscv64imac riscv64a23 s390x sparc \
        sparc64 wasm32 wasm64 x86_64 x86_64h xtensa thumbv7em asmjs unknown";
    let systems = "unknown aix android cuda darwin dragonfly emscripten espidf freebsd fuchsia haiku \
        hermit illumos ios l4re linux macosx netbsd none openbsd psp redox solaris solid_asp3 tvos uefi \
        visionos vxworks wasi wasip1 watchos windows xros";
    let environments = "unknown android androideabi eabi eabihf gnu gnuabi64 gnueabi gnueabihf gnullvm \
        gnuspe gnux32 gnu_ilp32 hermitkernel macabi msvc musl musleabi musleabihf muslabi64 newlib none \
        kernel uclibc uclibceabi sgx sim softfloat spe threads ohos";
    let formats = ["", "-elf", "-coff", "-macho", "-wasm", "-xcoff"];
    let mut targets = 0;
    for architecture in architectures.split_whitespace() {
        for system in systems.split_whitespace() {
            for environment in environments.split_whitespace() {
                for format in formats {
                    let text = format!("{architecture}-unknown-{system}-{environment}{format}");
                    let Ok(target) = Target::parse(&text) else { continue };
                    targets += 1;
                    match target.isa(&ModuleSettings::default()) {
                        Ok(isa) => assert_eq!(isa.pointer_bits(), 64, "{text}"),
                        // Not in this build.
                        Err(error) => assert!(error.to_string().contains("disabled"), "{text}: {error}"),
                    }
                }
            }
        }
    }
    assert!(targets > 50, "{targets}");
}

#[test]
fn the_target_of_a_code_generator_has_its_settings() {
    use cranelift_codegen::isa;
    use cranelift_codegen::settings::{self, Configurable as _};

    let shown = |isa: &dyn isa::TargetIsa| {
        let shared = isa.flags().iter().map(|value| value.to_string());
        let own = isa.isa_flags().into_iter().map(|value| value.to_string());
        let forced = ["is_pic=", "enable_verifier=", "tls_model="];
        shared.chain(own).filter(|text| !forced.iter().any(|name| text.starts_with(name))).collect::<Vec<_>>()
    };
    let triple = Target::parse("x86_64").unwrap().triple().clone();
    for (changes, features) in [
        (&[][..], &[][..]),
        (&[("opt_level", "speed_and_size"), ("enable_probestack", "false")], &["has_avx2", "has_sse41"]),
        (&[("preserve_frame_pointers", "true"), ("probestack_size_log2", "14")], &[]),
    ] {
        let mut flags = settings::builder();
        for (name, value) in changes {
            flags.set(name, value).unwrap();
        }
        let mut builder = isa::lookup(triple.clone()).unwrap();
        for feature in features {
            builder.enable(feature).unwrap();
        }
        let isa = builder.finish(settings::Flags::new(flags)).unwrap();
        let own = Target::of_isa(&*isa).unwrap().isa(&ModuleSettings::default()).unwrap();
        assert_eq!(shown(&*own), shown(&*isa));
    }
    // Cranelift's own default.
    let isa = isa::lookup(triple).unwrap().finish(settings::Flags::new(settings::builder())).unwrap();
    let own = Target::of_isa(&*isa).unwrap().isa(&ModuleSettings::default()).unwrap();
    assert_eq!(own.flags().opt_level(), settings::OptLevel::None);
    assert!(own.flags().is_pic());
}

#[test]
fn the_native_target_has_the_features_of_this_cpu() {
    let native = Target::native().isa(&ModuleSettings::default()).unwrap();
    let cranelift = cranelift_native::builder().unwrap();
    let flags = cranelift_codegen::settings::Flags::new(cranelift_codegen::settings::builder());
    let cranelift = cranelift.finish(flags).unwrap();
    let features = |isa: &dyn cranelift_codegen::isa::TargetIsa| {
        isa.isa_flags().into_iter().map(|value| value.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(features(&*native), features(&*cranelift));
    assert_eq!(native.flags().opt_level(), cranelift.flags().opt_level());
}
