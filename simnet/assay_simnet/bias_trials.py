from assay_simnet.trials import Result
def try_bias() -> Result:
    raise NotImplementedError
