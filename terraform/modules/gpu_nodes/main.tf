# Pools of nodes: a small one that is always there, and GPU and spot pools that scale from none.
#
# Labels and taints are the contract with the k8s overlay:
#   distill.platform/pool=<pool>              on every node
#   nvidia.com/gpu=true                       on nodes with GPUs, and as a taint: only who asks for a GPU lands there
#   distill.platform/pool=<pool>:NoSchedule   on spot nodes: only who can be evicted lands there

locals {
  labels = {
    for pool, given in var.pools : pool => merge(
      { "distill.platform/pool" = pool },
      given.gpu ? { "nvidia.com/gpu" = "true" } : {},
    )
  }

  taints = {
    for pool, given in var.pools : pool => merge(
      given.gpu ? { "nvidia.com/gpu" = "true" } : {},
      given.spot ? { "distill.platform/pool" = pool } : {},
    )
  }
}

resource "aws_eks_node_group" "this" {
  for_each = var.pools

  cluster_name           = var.cluster_name
  version                = var.kubernetes_version
  node_group_name_prefix = "${each.key}-"
  node_role_arn          = aws_iam_role.node.arn
  subnet_ids             = var.subnet_ids

  ami_type       = each.value.gpu ? "AL2023_x86_64_NVIDIA" : "AL2023_x86_64_STANDARD"
  capacity_type  = each.value.spot ? "SPOT" : "ON_DEMAND"
  instance_types = each.value.instance_types
  labels         = local.labels[each.key]

  launch_template {
    id      = aws_launch_template.this[each.key].id
    version = aws_launch_template.this[each.key].latest_version
  }

  scaling_config {
    min_size     = each.value.min
    max_size     = each.value.max
    desired_size = each.value.min
  }

  dynamic "taint" {
    for_each = local.taints[each.key]

    content {
      key    = taint.key
      value  = taint.value
      effect = "NO_SCHEDULE"
    }
  }

  update_config {
    max_unavailable = 1
  }

  lifecycle {
    create_before_destroy = true
    ignore_changes        = [scaling_config[0].desired_size] # the autoscaler's
  }

  depends_on = [aws_iam_role_policy_attachment.node]
}
