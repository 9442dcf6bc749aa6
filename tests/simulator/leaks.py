"""What a simulated silo's leak check measures."""

from silo_agent.leaks.figures import LeakFigures, Membership, Verbatim

FEW_LEAKS = LeakFigures(
    trained=400,
    heldout=300,
    trained_in_all=4000,
    heldout_in_all=300,
    is_cut=True,
    seconds=0.2,
    membership=Membership(auc=0.52, low=0.48, high=0.56),
    verbatim=Verbatim(trained=1, of_trained=390, heldout=1, of_heldout=290, chance=0.8),
)
"""Of an adapter that tells next to nothing of one record."""
