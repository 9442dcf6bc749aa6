"""The data contract that `silo-agent init` writes: complete, and refused until it has been read.

It is for the simplest data set, JSONL with a prompt and an answer. `status: draft` is what nobody
accepts, so an unread contract opens no door.
"""

from datetime import datetime, timedelta

from infra.disk.toml_text import toml_string

DATA_FILE = "records.jsonl"
VALIDITY = timedelta(days=365)

_CONTRACT = """\
# The data contract of {silo}: what its data may be used for. Read every line, put in what is yours,
# and set status to active; until then this contract is refused. docs/contracts.md explains every
# key and has examples for databases, clinical texts and images.
apiVersion: v3.2.0
kind: DataContract
id: {id}
version: 1.0.0
status: draft
description:
  purpose: {purpose} # the federation's purpose, word for word
servers:
  - {{server: silo, type: local, path: {file}, format: jsonl}} # below the data folder
schema:
  - name: records
    logicalType: object
    properties:
      - {{name: id, logicalType: string, required: true}}      # one of its own for every record
      - {{name: subject, logicalType: string, required: true}} # whose it is: a pseudonym
      - {{name: prompt, logicalType: string, required: true}}
      - {{name: answer, logicalType: string, required: true}}
      # conversations: in their place {{name: messages, logicalType: array}}; plain text: name: text
      # pictures: the path of a folder and format: image-text above, and for id, subject, prompt and
      # source {{name: image, logicalType: string, physicalName: file_name}}; answer is the caption
      - {{name: licence, logicalType: string, required: true}} # SPDX id of the record's licence
      - {{name: source, logicalType: string, required: true}}  # where the text comes from
customProperties:
  - {{property: fl.licences, value: [CC0-1.0]}}   # the licences that a record may have
  - {{property: fl.minimumRecords, value: 100}}   # with fewer nothing is trained
  - {{property: fl.minimumCohort, value: 10}}     # smaller counts than this never leave
  - {{property: fl.uses, value: [research]}}      # or [research, commercial]
  - {{property: fl.expires, value: "{expires}"}}
  - {{property: fl.retention, value: {{days: 30}}}} # how long what was made of the data is kept
"""


def contract_text(federation: str, silo: str, purpose: str, now: datetime) -> str:
    """A contract of one year from `now` for JSONL with a prompt and an answer, still a draft."""
    # A TOML basic string of one line is a YAML double-quoted scalar as well.
    return _CONTRACT.format(
        silo=silo,
        id=toml_string(f"{federation}-{silo}"),
        purpose=toml_string(purpose or "the purpose that the federation operator told you"),
        file=DATA_FILE,
        expires=f"{now + VALIDITY:%Y-%m-%dT00:00:00Z}",
    )
