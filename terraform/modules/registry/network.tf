# Nothing but the cluster comes in, and nothing goes out: a database asks nobody.

resource "aws_security_group" "this" {
  name        = "${var.name}-mlflow"
  description = "Postgres of MLflow: from the cluster"
  vpc_id      = var.vpc_id

  tags = { Name = "${var.name}-mlflow" }
}

resource "aws_vpc_security_group_ingress_rule" "cluster" {
  security_group_id            = aws_security_group.this.id
  description                  = "Postgres from nodes and pods"
  referenced_security_group_id = var.cluster_security_group_id
  ip_protocol                  = "tcp"
  from_port                    = 5432
  to_port                      = 5432
}
