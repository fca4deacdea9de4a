variable "name" {
  description = "Prefix of every name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,19}$", var.name))
    error_message = "name must be 2 to 20 lower-case letters, digits and '-', a letter first: bucket and role names are made of it."
  }
}

variable "cidr" {
  description = "Addresses of the VPC: a private /16."
  type        = string

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && can(regex("^(10|172\\.(1[6-9]|2[0-9]|3[01])|192\\.168)\\..*/16$", var.cidr))
    error_message = "cidr must be a private /16 such as 10.20.0.0/16: subnets for pods are cut from it by zone."
  }
}

variable "num_zones" {
  description = "Availability zones to spread over."
  type        = number
  default     = 3

  validation {
    condition     = contains([2, 3], var.num_zones)
    error_message = "num_zones must be 2 or 3: EKS and the database need two, and a fourth is not planned for in the addresses."
  }
}

variable "nat" {
  description = "NAT gateways: `none`, `single` (cheap, one zone's fault cuts all off) or `per_zone`."
  type        = string
  default     = "per_zone"

  validation {
    condition     = contains(["none", "single", "per_zone"], var.nat)
    error_message = "nat must be none, single or per_zone."
  }
}

variable "interface_endpoints" {
  description = "AWS services to reach without NAT, as in `com.amazonaws.<region>.<service>`; about 7 USD a month each per zone."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for service in var.interface_endpoints : can(regex("^[a-z0-9.-]+$", service))])
    error_message = "interface_endpoints holds the last part of service names, such as ecr.api, ecr.dkr, sts, eks-auth, logs."
  }

  validation {
    condition = var.nat != "none" || length(setsubtract(
      ["ec2", "ecr.api", "ecr.dkr", "eks", "eks-auth", "logs", "secretsmanager", "sts"], var.interface_endpoints
    )) == 0
    error_message = "without NAT nodes join only through interface endpoints: add ec2, ecr.api, ecr.dkr, eks, eks-auth, logs, secretsmanager and sts."
  }
}

variable "log_retention_days" {
  description = "Days that flow logs are kept."
  type        = number
  default     = 365

  validation {
    condition     = contains([30, 60, 90, 120, 150, 180, 365, 400, 545, 731], var.log_retention_days)
    error_message = "log_retention_days must be one that CloudWatch knows: 30, 60, 90, 120, 150, 180, 365, 400, 545 or 731."
  }
}
