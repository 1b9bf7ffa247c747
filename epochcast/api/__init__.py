"""What ``import epochcast as ec`` offers that needs several folders."""
