//! Shards: modules that one machine compiles in one go.
//!
//! The byte form, with numbers in little-endian order: magic (8 bytes), the number of environments
//! (`u32`), for each the length of a recipe (`u32`) and the recipe; the number of modules (`u32`),
//! for each the number of its environment (`u32`), its key (32 bytes), the length of its binary
//! form (`u64`) and the binary form, which declares the globals that the module uses.
//!
//! An environment (target, settings, versions) is one recipe, that of its first module, because all
//! modules of a build mostly share one, which is longer than many a module.

use kiln_cache::{Key, Recipe};

use crate::wire::{FormatError, Reader};

const MAGIC: &[u8; 8] = b"KilnShd1";

/// A module to write into a shard.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// The recipe of the module's key.
    pub recipe: &'a Recipe,
    /// The module in binary form.
    pub module: &'a [u8],
}

/// A module of a shard. Neither the key nor the module is checked.
#[derive(Clone, Debug)]
pub struct ShardItem<'a> {
    /// The key under which the build expects the module.
    pub key: Key,
    /// A recipe with the environment in which the module is to be compiled.
    pub environment: Recipe,
    /// The module in binary form.
    pub module: &'a [u8],
}

/// Returns the byte form of a shard.
///
/// # Panics
///
/// If there are 2^32 modules or more.
pub fn write_shard(items: &[Item<'_>]) -> Vec<u8> {
    let mut environments: Vec<&Recipe> = Vec::new();
    let mut numbers = Vec::with_capacity(items.len());
    for item in items {
        // Modules with an environment of their own are rare.
        let known = environments.iter().rposition(|known| known.same_environment(item.recipe));
        numbers.push(known.unwrap_or_else(|| {
            environments.push(item.recipe);
            environments.len() - 1
        }));
    }
    let number = |number: usize| u32::try_from(number).expect("fewer than 2^32 modules").to_le_bytes();
    let len = items.iter().map(|item| 44 + item.module.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(len + 4096);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&number(environments.len()));
    for environment in environments {
        let recipe = environment.to_bytes();
        bytes.extend_from_slice(&number(recipe.len()));
        bytes.extend_from_slice(&recipe);
    }
    bytes.extend_from_slice(&number(items.len()));
    for (item, environment) in items.iter().zip(numbers) {
        bytes.extend_from_slice(&number(environment));
        bytes.extend_from_slice(item.recipe.key().as_bytes());
        bytes.extend_from_slice(&(item.module.len() as u64).to_le_bytes());
        bytes.extend_from_slice(item.module);
    }
    bytes
}

/// Reads a shard from untrusted bytes.
///
/// # Errors
///
/// [`FormatError`] if the bytes are not what [`write_shard`] makes.
pub fn read_shard(bytes: &[u8]) -> Result<Vec<ShardItem<'_>>, FormatError> {
    let mut reader = Reader::new(bytes);
    reader.magic(MAGIC, "not a shard of this version")?;
    let mut environments = Vec::new();
    for _ in 0..reader.count(4)? {
        let len = reader.u32()?;
        let recipe = reader.bytes(len.into())?;
        environments.push(Recipe::from_bytes(recipe).map_err(|_| reader.error("not a recipe"))?);
    }
    let count = reader.count(4 + 32 + 8)?;
    let mut items = Vec::with_capacity(count);
    for _ in 0..count {
        let environment = environments.get(reader.u32()? as usize).cloned();
        let environment = environment.ok_or_else(|| reader.error("an environment that is not there"))?;
        let key = Key::from_bytes(reader.array()?);
        let len = reader.u64()?;
        items.push(ShardItem { key, environment, module: reader.bytes(len)? });
    }
    reader.end()?;
    Ok(items)
}
