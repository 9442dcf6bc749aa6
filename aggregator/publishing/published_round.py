"""From a reported round to the folder that a model user takes.

Everything comes from the report's bundle, so a coordinator that was killed between the decision and
the folder writes the same bytes afterwards, also where evidence was erased from storage since.
"""

import logging
import shutil

from aggregator.coordinator import Coordinator
from aggregator.evidence.spool import spool
from aggregator.publishing.model_card import card_records, render_card
from aggregator.publishing.prompt_format import prompt_format
from aggregator.publishing.publish import PeftAdapter, write_published
from aggregator.report.files import ReportFiles, read_bundle

FORMER_RESIDUAL = "published-residual"
"""Where the residual lay before it came into the published folder."""


log = logging.getLogger("consortia")


def publish_round(c: Coordinator, files: ReportFiles) -> None:
    """Lay out the adapter of a round whose report says "published", with residual and card.

    Under `shared_a` nothing: there is no B for everybody. A folder of another run stays as it is.
    """
    records = card_records(read_bundle(files.bundle))
    plan, candidate = records.plan, records.candidate
    if plan.shares_a:
        log.info(
            "round %d: its A is what the next round starts from; there is nothing for users of a "
            "model, and no folder is written: each institution has its own adapter, which "
            "`silo-agent export --personal` writes there",
            plan.round,
        )
        return
    family, base = plan.learned.family, plan.base_model
    adapter = PeftAdapter(spool(c, c.plans, candidate.adapter), plan.layout, base, family)
    residual = None
    if candidate.residual is not None and plan.residual_layout is not None:
        file = spool(c, c.plans, candidate.residual)
        residual = PeftAdapter(file, plan.residual_layout, base, family)
    model_dir = c.settings.path(c.settings.base_model.path)
    prompt = prompt_format(model_dir, plan.base_model.digest, c.model_digests)
    write_published(c.published, adapter, render_card(records, prompt), residual)
    shutil.rmtree(c.settings.home / FORMER_RESIDUAL, ignore_errors=True)
