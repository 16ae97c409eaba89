"""What becomes of jobs when processes are killed, disks fill and messages come twice."""
