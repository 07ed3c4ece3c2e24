import pytest

from nutclf.evaluate.diagnosis import Claim


def test_a_claim_stands_for_everything_that_rounds_to_it():
    claim = Claim(0.94)
    assert claim.rounds_from(0.935) and claim.rounds_from(0.945)
    assert not claim.rounds_from(0.9349) and not claim.rounds_from(0.9451)
    assert not Claim(0.94, decimals=3).rounds_from(0.942)


def test_on_the_same_split_the_claim_is_arithmetic():
    assert Claim(0.94).fits(47, 50)
    assert not Claim(0.94).fits(46, 50)
    assert Claim(0.9, decimals=1).fits(46, 50)


def test_on_another_split_the_claim_is_a_test():
    assert Claim(0.94, n=50).fits(44, 50)
    assert not Claim(0.94, n=50).fits(5, 50)


def test_the_test_is_fishers():
    # Fisher's tea, 3 of 4 right against 1 of 4: p = (1 + 16 + 16 + 1) / 70.
    assert Claim(0.25, n=4).p_value(3, 4) == pytest.approx(34 / 70)


def test_of_the_counts_behind_a_rounded_claim_the_kindest_is_taken():
    exact, rounded = Claim(0.9, decimals=4, n=1000), Claim(0.9, decimals=1, n=1000)
    assert rounded.p_value(820, 1000) > exact.p_value(820, 1000)


def test_a_claim_that_no_count_gives_is_tested_by_the_nearest():
    assert 0 < Claim(0.94, n=7).p_value(7, 7) <= 1


def test_a_claim_prints_as_it_was_printed():
    assert str(Claim(0.9)) == "0.90"
    assert str(Claim(0.94, n=50)) == "0.94 on 50 other images"


@pytest.mark.parametrize("given", [(94,), (-0.1,), (float("nan"),), (0.9, -1), (0.9, 2, 0)])
def test_impossible_claims_are_refused(given):
    with pytest.raises(ValueError, match="impossible"):
        Claim(*given)
