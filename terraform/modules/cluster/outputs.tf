output "name" {
  description = "Name of the cluster, known once nodes can join it."
  value       = aws_eks_cluster.this.name

  depends_on = [aws_eks_addon.daemon]
}

output "version" {
  description = "Kubernetes version of the control plane."
  value       = aws_eks_cluster.this.version
}

output "security_group_id" {
  description = "Group of control plane and nodes, to be let into the database."
  value       = aws_eks_cluster.this.vpc_config[0].cluster_security_group_id
}
