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
