# To try things in: small, single where prod is doubled, and torn down by one `terraform destroy`.

locals {
  name = "distill-dev"

  tags = {
    project     = "distill"
    environment = "dev"
  }
}

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}

module "network" {
  source = "../../modules/network"

  name               = local.name
  cidr               = "10.20.0.0/16"
  num_zones          = 2
  nat                = "single"
  log_retention_days = 30
}

module "storage" {
  source = "../../modules/storage"

  name               = local.name
  collector_role_arn = "arn:${data.aws_partition.this.partition}:iam::${data.aws_caller_identity.this.account_id}:role/${local.name}-collector"
  model_lock         = { mode = "GOVERNANCE", days = 1 }
  log_retention_days = 30
  force_destroy      = true

  noncurrent_version_days = 30
}

module "cluster" {
  source = "../../modules/cluster"

  name                = local.name
  kubernetes_version  = var.kubernetes_version
  subnet_ids          = module.network.private_subnet_ids
  public_access_cidrs = var.public_access_cidrs
  admin_role_arns     = var.admin_role_arns
  log_retention_days  = 30
}

module "gpu_nodes" {
  source = "../../modules/gpu_nodes"

  cluster_name       = module.cluster.name
  kubernetes_version = module.cluster.version
  subnet_ids         = module.network.private_subnet_ids
  tags               = local.tags

  pools = {
    system   = { instance_types = ["m7i.large"], min = 2, max = 4 }
    cpu-spot = { instance_types = ["m7i.2xlarge", "m6i.2xlarge", "m6a.2xlarge"], spot = true, max = 4 }
    gpu-spot = { instance_types = ["g5.xlarge", "g6.xlarge"], gpu = true, spot = true, max = 2, disk_gib = 200 }
  }
}

module "registry" {
  source = "../../modules/registry"

  name                      = local.name
  vpc_id                    = module.network.vpc_id
  subnet_ids                = module.network.private_subnet_ids
  cluster_security_group_id = module.cluster.security_group_id
  models_bucket             = module.storage.buckets.models
  instance_class            = "db.t4g.micro"
  multi_az                  = false
  backup_days               = 1
  deletion_protection       = false
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
