//! The address that an image is made for.

use kiln_artifact::record::SymbolKind;

use super::options::{ImageBase, ImageOptions};
use crate::elf64::BASE_ALIGN;
use crate::link::{LinkError, Plan};

/// Addresses of images that have no address of their own begin at a multiple of [`BASE_ALIGN`] in
/// this range. On all architectures with 47 bits of addresses, systems put other things elsewhere:
/// programs and their heaps below or above, libraries and stacks at the end, the shadow memory of
/// sanitizers below. Where it is not available, an image is moved.
const PREFERRED: std::ops::Range<u64> = 0x2000_0000_0000..0x5000_0000_0000;

/// Bases are below this.
const MAX: u64 = 1 << 47;

/// Returns the address of an image's first byte, or 0 if it is made for no address.
///
/// # Errors
///
/// [`LinkError::Base`] for an address that no image can have.
pub(super) fn base(plan: &Plan<'_>, options: &ImageOptions) -> Result<u64, LinkError> {
    let has_heap = || plan.definitions().any(|definition| definition.kind == SymbolKind::Global);
    match options.base {
        ImageBase::Auto if !has_heap() => Ok(0),
        ImageBase::Anywhere => Ok(0),
        ImageBase::Auto | ImageBase::Preferred => {
            let mut hasher = blake3::Hasher::new();
            for artifact in plan.artifacts() {
                hasher.update_rayon(artifact.as_bytes());
            }
            let hash = hasher.finalize();
            let [number, ..] = hash.as_bytes().as_chunks::<8>().0 else { unreachable!("32 bytes") };
            let choices = (PREFERRED.end - PREFERRED.start) / BASE_ALIGN;
            Ok(PREFERRED.start + u64::from_le_bytes(*number) % choices * BASE_ALIGN)
        }
        ImageBase::At(base) if base == 0 || base >= MAX || !base.is_multiple_of(BASE_ALIGN) => {
            Err(LinkError::Base { base })
        }
        ImageBase::At(base) => Ok(base),
    }
}
