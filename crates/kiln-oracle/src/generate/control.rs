//! Control flow inside a function: branches, loops and jump tables, with statements nested in them.

use cranelift_codegen::ir::{Block, BlockArg, InstBuilder, JumpTableData, Type, Value, types};
use cranelift_module::Module;

use super::body::Body;

impl<M: Module> Body<'_, '_, M> {
    /// Makes a block. Some blocks are laid out at once after any other block, some are cold, and
    /// some have a gap in the numbers before them.
    fn block(&mut self) -> Block {
        if self.random.once_in(6) {
            self.builder.create_block();
        }
        let block = self.builder.create_block();
        if self.random.once_in(3) {
            let after = *self.random.choose(&self.blocks);
            self.builder.insert_block_after(block, after);
            self.blocks.push(block);
        }
        if self.random.once_in(8) {
            self.builder.set_cold_block(block);
        }
        block
    }

    fn start(&mut self, block: Block) {
        self.builder.switch_to_block(block);
        self.builder.ensure_inserted_block();
        if !self.blocks.contains(&block) {
            self.blocks.push(block);
        }
    }

    /// Starts a block whose predecessors are all built.
    fn enter(&mut self, block: Block, params: &[(Type, Value)]) {
        self.start(block);
        self.builder.seal_block(block);
        self.scope.extend_from_slice(params);
    }

    /// Ends an arm with a jump to the block after the branch, and forgets all but the first `known`
    /// values, which dominate the other arms too.
    fn leave(&mut self, after: Block, types: &[Type], known: usize) {
        let arguments = self.arguments(types);
        self.builder.ins().jump(after, &arguments);
        self.scope.truncate(known);
    }

    /// Returns types for the parameters of a block.
    fn params(&mut self) -> Vec<Type> {
        (0..self.random.below(4)).map(|_| *self.random.choose(&self.types.clone())).collect()
    }

    fn arguments(&mut self, types: &[Type]) -> Vec<BlockArg> {
        types.iter().map(|&ty| self.pick(ty).into()).collect()
    }

    fn append_params(&mut self, block: Block, types: &[Type]) -> Vec<(Type, Value)> {
        types.iter().map(|&ty| (ty, self.builder.append_block_param(block, ty))).collect()
    }

    pub(super) fn branch(&mut self, size: u32) {
        let one_arm = self.random.once_in(3);
        let mut blocks: Vec<Block> = (0..if one_arm { 2 } else { 3 }).map(|_| self.block()).collect();
        // The blocks are not always filled in the order of their numbers.
        self.random.shuffle(&mut blocks);
        let (yes, after, no) = (blocks[0], blocks[1], blocks.get(2).copied());
        let (own, both) = (self.params(), self.params());
        let own_params = self.append_params(yes, &own);
        let merged = self.append_params(after, &both);
        let condition = self.condition();
        let to_yes = self.arguments(&own);
        let known = self.scope.len();
        if let Some(no) = no {
            self.builder.ins().brif(condition, yes, &to_yes, no, &[]);
            self.enter(no, &[]);
            self.statements(size / 2);
            if self.random.once_in(8) {
                self.end();
                self.scope.truncate(known);
            } else {
                self.leave(after, &both, known);
            }
        } else {
            // The branch has no second arm.
            let around = self.arguments(&both);
            self.builder.ins().brif(condition, yes, &to_yes, after, &around);
        }
        self.enter(yes, &own_params);
        self.statements(size.div_ceil(2));
        self.leave(after, &both, known);
        self.enter(after, &merged);
    }

    pub(super) fn repeat(&mut self, size: u32) {
        let rounds = self.random.within(1, 5);
        let (head, after) = (self.block(), self.block());
        let carried = self.params();
        let counter = self.builder.append_block_param(head, types::I32);
        let params = self.append_params(head, &carried);
        let known = self.scope.len();
        let start = self.builder.ins().iconst(types::I32, i64::from(rounds));
        let mut arguments = vec![start.into()];
        arguments.extend(self.arguments(&carried));
        self.builder.ins().jump(head, &arguments);
        self.start(head);
        self.scope.extend(params);
        self.loops += 1;
        self.times *= u64::from(rounds);
        self.statements(size);
        let one = self.builder.ins().iconst(types::I32, 1);
        let left = self.builder.ins().isub(counter, one);
        let mut again = vec![left.into()];
        again.extend(self.arguments(&carried));
        self.times /= u64::from(rounds);
        self.loops -= 1;
        self.builder.ins().brif(left, head, &again, after, &[]);
        self.builder.seal_block(head);
        // The body dominates what follows, but its values are not used there.
        self.scope.truncate(known);
        self.enter(after, &[]);
    }

    pub(super) fn switch(&mut self, size: u32) {
        let mut blocks: Vec<Block> = (0..self.random.within(1, 6)).map(|_| self.block()).collect();
        let after = self.block();
        let both = self.params();
        let merged = self.append_params(after, &both);
        let index = self.pick(types::I32);
        let mask = self.builder.ins().iconst(types::I32, 7);
        let index = if self.random.once_in(6) { index } else { self.builder.ins().band(index, mask) };
        let known = self.scope.len();
        let around = self.arguments(&both);
        let mut calls: Vec<_> = Vec::new();
        for &block in &blocks {
            for _ in 0..self.random.within(1, 2) {
                calls.push(self.builder.func.dfg.block_call(block, &[]));
            }
        }
        let straight = self.builder.func.dfg.block_call(after, &around);
        let default = if self.random.once_in(2) { straight } else { calls[0] };
        self.random.shuffle(&mut calls);
        let table = self.builder.create_jump_table(JumpTableData::new(default, &calls));
        self.builder.ins().br_table(index, table);
        self.random.shuffle(&mut blocks);
        let share = size / blocks.len() as u32;
        for block in blocks {
            self.enter(block, &[]);
            self.statements(share.max(1));
            self.leave(after, &both, known);
        }
        self.enter(after, &merged);
    }
}
