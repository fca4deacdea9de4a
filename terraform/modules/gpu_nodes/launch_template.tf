resource "aws_launch_template" "this" {
  for_each = var.pools

  name_prefix            = "${var.cluster_name}-${each.key}-"
  update_default_version = true

  # One hop: the metadata service, and with it the node's role, is out of reach of pods.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type           = "gp3"
      volume_size           = each.value.disk_gib
      encrypted             = true
      kms_key_id            = module.key.arn
      delete_on_termination = true
    }
  }

  monitoring {
    enabled = true
  }

  dynamic "tag_specifications" {
    for_each = toset(["instance", "volume"])

    content {
      resource_type = tag_specifications.key
      tags          = merge(var.tags, { Name = "${var.cluster_name}-${each.key}" })
    }
  }
}

module "key" {
  source = "../key"

  name            = "${var.cluster_name}/volumes"
  description     = "Volumes of the nodes of ${var.cluster_name}, and of claims in it"
  used_by_volumes = true
}
