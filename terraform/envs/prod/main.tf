# To rely on: a NAT gateway and a standby per zone, locks and protections on, logs for a year.

locals {
  name = "distill-prod"

  tags = {
    project     = "distill"
    environment = "prod"
  }
}

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}

module "network" {
  source = "../../modules/network"

  name               = local.name
  cidr               = "10.30.0.0/16"
  num_zones          = 3
  nat                = "per_zone"
  log_retention_days = 365
}

module "storage" {
  source = "../../modules/storage"

  name               = local.name
  collector_role_arn = "arn:${data.aws_partition.this.partition}:iam::${data.aws_caller_identity.this.account_id}:role/${local.name}-collector"
  model_lock         = { mode = "GOVERNANCE", days = 365 }
}

module "cluster" {
  source = "../../modules/cluster"

  name                = local.name
  kubernetes_version  = var.kubernetes_version
  subnet_ids          = module.network.private_subnet_ids
  public_access_cidrs = var.public_access_cidrs
  admin_role_arns     = var.admin_role_arns
  log_retention_days  = 365
}

module "gpu_nodes" {
  source = "../../modules/gpu_nodes"

  cluster_name       = module.cluster.name
  kubernetes_version = module.cluster.version
  subnet_ids         = module.network.private_subnet_ids
  tags               = local.tags

  pools = {
    system   = { instance_types = ["m7i.xlarge"], min = 3, max = 6 }
    cpu-spot = { instance_types = ["m7i.4xlarge", "m6i.4xlarge", "m6a.4xlarge"], spot = true, max = 20 }
    gpu      = { instance_types = ["g6e.4xlarge"], gpu = true, max = 4, disk_gib = 500 }
    gpu-spot = { instance_types = ["g5.2xlarge", "g6.2xlarge"], gpu = true, spot = true, max = 16, disk_gib = 200 }
  }
}

module "registry" {
  source = "../../modules/registry"

  name                      = local.name
  vpc_id                    = module.network.vpc_id
  subnet_ids                = module.network.private_subnet_ids
  cluster_security_group_id = module.cluster.security_group_id
  models_bucket             = module.storage.buckets.models
  instance_class            = "db.t4g.medium"
}

module "iam" {
  source = "../../modules/iam"

  name                = local.name
  cluster_name        = module.cluster.name
  bucket_arns         = module.storage.bucket_arns
  key_arns            = module.storage.key_arns
  database_secret_arn = module.registry.secret_arn
  database_key_arn    = module.registry.key_arn
}
