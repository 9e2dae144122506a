"""What every step uses: checks, hyper-parameters, scores, class weights, reductions."""
