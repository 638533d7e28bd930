"""What came of a sweep: leaderboard, result, evaluations on the test images; views of the records."""
