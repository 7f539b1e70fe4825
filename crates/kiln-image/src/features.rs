//! CPU features of this machine, by Cranelift's setting names.

/// Returns every member of `features` that the CPU of this process lacks or that cannot be
/// detected. Code that needs such a feature must not run.
pub fn missing_features<'f>(features: impl Iterator<Item = &'f str>) -> impl Iterator<Item = &'f str> {
    features.filter(|feature| host_has_feature(feature) != Some(true))
}

/// Returns whether the CPU of this process has the feature that Cranelift calls `name`, such as
/// `has_avx2`, or `None` if the name is unknown here or names a setting that is not a CPU feature.
pub fn host_has_feature(name: &str) -> Option<bool> {
    host(name)
}

#[cfg(target_arch = "x86_64")]
fn host(name: &str) -> Option<bool> {
    use std::arch::is_x86_feature_detected as has;
    Some(match name {
        "has_sse3" => has!("sse3"),
        "has_ssse3" => has!("ssse3"),
        "has_cmpxchg16b" => has!("cmpxchg16b"),
        "has_sse41" => has!("sse4.1"),
        "has_sse42" => has!("sse4.2"),
        "has_avx" => has!("avx"),
        "has_avx2" => has!("avx2"),
        "has_avx_vnni" => has!("avxvnni"),
        "has_fma" => has!("fma"),
        "has_bmi1" => has!("bmi1"),
        "has_bmi2" => has!("bmi2"),
        "has_avx512bitalg" => has!("avx512bitalg"),
        "has_avx512dq" => has!("avx512dq"),
        "has_avx512f" => has!("avx512f"),
        "has_avx512vl" => has!("avx512vl"),
        "has_avx512vbmi" => has!("avx512vbmi"),
        "has_avx512vnni" => has!("avx512vnni"),
        "has_popcnt" => has!("popcnt"),
        "has_lzcnt" => has!("lzcnt"),
        _ => return None,
    })
}

#[cfg(target_arch = "aarch64")]
fn host(name: &str) -> Option<bool> {
    use std::arch::is_aarch64_feature_detected as has;
    Some(match name {
        "has_lse" => has!("lse"),
        "has_pauth" => has!("paca") && has!("pacg"),
        "has_fp16" => has!("fp16"),
        "has_dotprod" => has!("dotprod"),
        "has_i8mm" => has!("i8mm"),
        // Landing pads do nothing where they are unknown.
        "use_bti" => true,
        _ => return None,
    })
}

/// The extensions of RV64G, which Cranelift requires and every riscv64 Linux has. Rust cannot
/// detect other extensions yet.
#[cfg(target_arch = "riscv64")]
fn host(name: &str) -> Option<bool> {
    matches!(name, "has_m" | "has_a" | "has_f" | "has_d" | "has_zicsr" | "has_zifencei").then_some(true)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
fn host(_name: &str) -> Option<bool> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_not_an_absent_feature() {
        assert_eq!(host_has_feature("has_telepathy"), None);
        #[cfg(target_arch = "x86_64")]
        assert!(host_has_feature("has_sse3").is_some());
    }
}
