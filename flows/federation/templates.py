"""The settings file that `consortia federation init` writes, with comments for its editor."""

FEDERATION_TEMPLATE = """\
# Settings of this federation. Paths are relative to this directory. Everything here becomes part
# of each round's signed plan; every silo's own policy decides whether to take part.
federation = {federation}
run = {run}                 # a new name starts over from the base model
purpose = {purpose}
use = "research"              # or "commercial": what licences and data use conditions must permit
trust_mode = "auditable"      # the aggregator sees each adapter; "confidential": only their sum,
                              # with [masking] below and other merge rules; see docs/privacy.md

[storage]
endpoint_url = {endpoint_url}
credentials = "keys/storage-credentials.toml" # its owner may replace it while processes run
encryption = "age"            # whoever runs it reads no adapter; without the line, all of them
{more_storage}{plain}allow_plain_http = true    # where the network below is encrypted

[prefect]
api_url = {prefect_api_url}
auth = {prefect_auth}   # a file that holds user:password
# ca_bundle = "ca.pem"

[base_model]
name = {model_name}
licence = {model_licence}   # SPDX id, or a LicenseRef- of the table in docs/contracts.md
# licence_acceptance = "LicenseRef-Gemma-Terms accepted by A. Person" # where a licence asks for it
{model_hub}
path = {model_path}

# [task]                      # what is learned, where that is not text by a causal model
# family = "sequence-classification" # or masked-lm, dual-encoder, denoising; docs/families.md
# classes = ["loans", "cards"] # in the order of the head, which stays for the run

[adapter]
rank = 8
alpha = 16
target_modules = "all-linear" # or a list such as ["q_proj", "v_proj"]

[recipe]
local_steps = 6
# least_steps = 3             # a silo that can do no more may stop here; see docs/operator.md
sequences_per_step = 2        # over all ranks of a silo
sequence_length = 256
learning_rate = "0.001"
warmup_steps = 0

[round]
quorum = 2                    # submissions without which an attempt is aborted
evaluation_quorum = 2         # evaluations without which a candidate is held
submit_minutes = 60
evaluate_minutes = 30
weight_cap_tokens = 10_000_000
max_attempts = 2
poll_seconds = 2

[merge]
rule = "stack_truncate"       # or average, frozen_a, alternating, fedsvd, residual, zero_pad
                              # or shared_a: silos share A and keep B, so each has an adapter of
                              # its own and nothing is published (docs/personal.md); 2 local_steps
                              # or sketch, in confidential mode; without the line average there
                              # or fed_sb: after one round silos train and send small cores alone
compression = "int8"          # or int4, "none": of silos' adapters; confidential, fed_sb: no line
# error = "exact"             # how far merges are off, in full; estimated above 8 silos otherwise
# dask_scheduler = "tls://..." # merge on a Dask cluster; pip install consortia[dask]
# residual_rank = 16          # with rule = "residual"
# rank_weights = "trained"    # with [silo_adapters]: a rank is averaged over silos that train it
# [merge.optimizer]           # with rule = "stack_truncate", "sketch", "fed_sb" or "shared_a"
# name = "heavy_ball"         # or fedexp, fedavg, fedavgm, fedadam, diloco
# [merge.robust]
# tolerated_silos = 1         # clip, mix, geometric median; needs a quorum of 5

# [masking]                   # with trust_mode = "confidential"
# threshold = 4               # silos that a sum needs; otherwise more than two thirds of them
# key_minutes = 15            # for the check of data, and keys; otherwise a quarter of the time
# share_minutes = 7.5         # after them for sealed shares, otherwise an eighth; then silos train
# reveal_minutes = 30         # after submit_minutes; otherwise evaluate_minutes
# largest_change = "1"        # of an entry of an adapter; what is larger is cut
# clip_norm = "10"            # of a whole change; needed with the optimizer fedexp

# [privacy]                   # differentially private training; see docs/privacy.md
# unit = "subject"            # all records of a subject, or "record"; contracts say fl.privacy
# clipping_norm = "1"         # of the gradient of a unit, over all that is trained
# noise_multiplier = "1"      # standard deviation of the noise of a step, in clipping norms
# records_per_unit = 4        # of a subject that is drawn in a step, at the most

# [silo_adapters.north]       # a silo whose machine takes less than the whole
# rank = 4
# alpha = 8
# target_modules = ["q_proj", "v_proj"]

[publication]                 # nats per token, relative to the starting adapter
max_mean_increase = "0"
max_silo_increase = "0.05"
# name_silos = true            # the model card names the silos; each one's policy has to allow it

# [copies.counted]            # of silos with the same change neither counts; see docs/merge.md
# north = "A. Person saw its training logs, the other silo had none" # counts all the same, and why

[ledger]                      # what a decision rests on is locked before it is signed
place = "inbox"               # "copy" where the storage has no versions or Object Lock
mode = "governance"           # erasing takes a right of its own; "compliance": nobody can
days = 365

[disk]                        # what no round needs goes after its report; see docs/disk.md
keep_rounds = 1               # whose adapters the workspace keeps, besides the next starting ones

[schedule]
cron = "0 2 * * *"            # one round every night; remove the line for rounds on demand only
timezone = "UTC"              # `consortia deploy` tells Prefect, and says what changed
"""
