"""Which way of federating learns best: every merge rule over real topical texts, non-IID.

Protocol, in the order in which it happens (`python -m benchmarks.quality`, `--quick` for a slice):

1. Base: a byte-level BPE and a small Llama, trained on the State of the Union speeches and on the
   chapters of ICD-10-CM that are no topics. Cached.
2. Data: nine other chapters as topics, with equal shares. Categories are held out whole.
3. Silos: six, of equal size, by Hsu et al. 2019: IID, Dirichlet 0.5, Dirichlet 0.1 over topics.
4. Rounds: every silo takes the same number of AdamW steps (new optimizer each round, as in the
   product) on LoRA of all linear layers; the product's own merge makes the next global adapter.
5. Learning rate: one grid for everybody. Each entrant takes the rate with the lowest validation
   loss under Dirichlet 0.5 (pooled baselines: on the pool) at a seed of which no figure is told; an
   option of the default keeps the default's rate.
6. Figures: test loss in nats per token, mean over topics; mean and sample deviation over seeds. A
   seed draws partition, adapter and order of the sequences; base and held-out texts stay.

Beside the contenders: `base` (no adapter), `silo_only` (each silo alone, as many steps; mean over
silos), `centralised` (pooled: the same sequences, as many tokens in all and as many sequential
steps as a silo takes) and `centralised_small_batches` (as many tokens, one silo's batch at a time,
so `silos` times the steps). Every figure is at equal tokens: with `--rounds` also in 2 and 4
rounds of as many steps in all.

A silo of lower rank trains beside what its rank leaves out of the global adapter, as in the
product, but for `..._part_alone`. `--ranks` measures something else: how much of the merged adapter
lies beyond the lowest rank of a silo, round by round.
"""
